//! Values as people write them for uWSGI.

use super::rows::*;
use super::*;

fn parsed(value: &str) -> Logger {
    let mut config = Config::default();
    let logger = Logger::parse(value, &mut config).unwrap();
    assert_eq!(config.warnings, [""; 0]);
    logger
}

#[test]
fn loggers_are_written_as_for_uwsgi() {
    let file = |path: &str| LogFile { path: path.into(), ..LogFile::default() };
    let unnamed = |target| Logger { name: None, target };
    assert_eq!(parsed("stdio"), unnamed(LogTarget::Stdio));
    assert_eq!(parsed("file:/tmp/a b"), unnamed(LogTarget::File(file("/tmp/a b"))));
    assert_eq!(parsed("x file:y"), Logger { name: Some("x".into()), target: LogTarget::File(file("y")) });
    assert_eq!(
        parsed("file:logfile=/a,maxsize=20,backupname=/b"),
        unnamed(LogTarget::File(LogFile { path: "/a".into(), max_size: 20, backup: Some("/b".into()) }))
    );
    assert_eq!(parsed("fd:3"), unnamed(LogTarget::Fd(3)));
    let socket = |address: &str, prefix: &str| LogTarget::Socket { address: address.into(), prefix: prefix.into() };
    assert_eq!(parsed("socket:localhost:11514").target, socket("localhost:11514", ""));
    assert_eq!(parsed("logstash socket:/run/x,web ").target, socket("/run/x", "web "));
    let syslog = |ident: &str, facility| LogTarget::Syslog { ident: ident.into(), facility };
    assert_eq!(parsed("syslog").target, syslog("uwsgi", 3));
    assert_eq!(parsed("syslog:a-b,local6").target, syslog("a-b", 22));
    assert_eq!(parsed("syslog:a,nonsense").target, syslog("a", 3));
    let rsyslog = |address: &str, ident: Option<&str>, priority| LogTarget::Rsyslog {
        address: address.into(),
        ident: ident.map(Into::into),
        priority,
    };
    assert_eq!(parsed("rsyslog:10.0.0.1:99,me,31").target, rsyslog("10.0.0.1:99", Some("me"), 31));
    assert_eq!(parsed("rsyslog:10.0.0.1").target, rsyslog("10.0.0.1", None, 29));
}

#[test]
fn a_logger_that_is_not_here_says_where_its_lines_go() {
    let mut config = Config::default();
    logger(&mut config, "redislog:127.0.0.1:6379,publish uwsgi").unwrap();
    assert_eq!(config.logs.general.loggers[0].target, LogTarget::Stdio);
    assert!(config.warnings[0].contains("go where stdio's go"), "{:?}", config.warnings);
    assert!(logger(&mut config, "nonsense:x").is_err());
}

#[test]
fn what_uwsgi_overlooks_in_a_file_is_a_warning() {
    let mut config = Config::default();
    logger(&mut config, "file:logfile=/a,count=5,maxsize=9").unwrap();
    logger(&mut config, "file:maxsize=9").unwrap();
    let file = LogFile { path: "/a".into(), max_size: 9, backup: None };
    let targets: Vec<_> = config.logs.general.loggers.iter().map(|logger| &logger.target).collect();
    assert_eq!(targets, [&LogTarget::File(file), &LogTarget::Stdio]);
    assert!(config.warnings[0].contains("'count=5'") && config.warnings.len() == 2, "{:?}", config.warnings);
}

#[test]
fn encoders_are_parsed_once() {
    let mut config = Config::default();
    encoder(&mut config, "json:a {\"t\":\"${strftime:%Y}\",\"m\":\"${msg}\"}").unwrap();
    encoder(&mut config, "prefix  two blanks").unwrap();
    encoder(&mut config, "nl").unwrap();
    encoder(&mut config, "format $a ${msgnl}${unknown}${unix").unwrap();
    encoder(&mut config, "gzip").unwrap();
    assert!(encoder(&mut config, "nonsense").is_err());
    let text = |text: &str| EncoderPart::Text(text.into());
    let [json, prefix, newline, format] = &config.logs.general.encoders[..] else { panic!("four encoders") };
    assert_eq!(json.logger.as_deref(), Some("a"));
    let strftime = EncoderPart::Strftime("%Y".into());
    let parts = vec![text("{\"t\":\""), strftime, text("\",\"m\":\""), EncoderPart::Message, text("\"}")];
    assert_eq!(json.kind, EncoderKind::Json(parts));
    assert_eq!(prefix.kind, EncoderKind::Prefix(" two blanks".into()));
    assert_eq!(newline.kind, EncoderKind::Newline);
    let parts = vec![text("$a "), EncoderPart::MessageWithEnd, text("${unix")];
    assert_eq!(format.kind, EncoderKind::Format(parts));
    assert_eq!(config.warnings.len(), 1);
}

#[test]
fn a_pattern_that_cannot_be_used_and_a_route_to_nowhere_are_left_out_with_a_warning() {
    let mut config = Config::default();
    drain(&mut config, "(?=x)").unwrap();
    filter(&mut config, r"\d+ \xff").unwrap();
    logger(&mut config, "here stdio").unwrap();
    route(&mut config, "here .*").unwrap();
    route(&mut config, "nowhere .*").unwrap();
    request_route(&mut config, "here 500").unwrap();
    finish(&mut config);
    assert_eq!((config.logs.drain.len(), config.logs.filter.len()), (0, 1));
    assert_eq!(config.logs.general.routes.len(), 1);
    assert_eq!(config.logs.requests.routes.len(), 1);
    assert_eq!(config.warnings.len(), 2, "{:?}", config.warnings);
    assert!(route(&mut config, "alone").is_err());
}

#[test]
fn a_log_file_with_a_port_is_another_machine() {
    let mut config = Config { logto: Some("10.0.0.1:1717".into()), logto2: Some("/a:1".into()), ..Config::default() };
    finish(&mut config);
    let target = LogTarget::Socket { address: "10.0.0.1:1717".into(), prefix: String::new() };
    assert_eq!(config.logs.general.loggers, [Logger { name: None, target }]);
    assert_eq!((config.logto, config.logto2), (None, Some("/a:1".into())));
}

#[test]
fn the_date_has_uwsgis_words() {
    for (values, expected) in [
        (&["true"][..], LogDate::Ctime),
        (&["%Y", "true"], LogDate::Strftime("%Y".into())),
        (&["true", "no"], LogDate::Own),
    ] {
        let mut config = Config::default();
        values.iter().for_each(|value| date(&mut config, value).unwrap());
        assert_eq!(config.logs.date, expected);
    }
}
