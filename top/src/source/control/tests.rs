use std::io::{BufRead, BufReader};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use proptest::prelude::*;
use rwsgi_stats::control::{Frame, Profile, ProfileStack, Stacks, ThreadStack, ThreadState};

use super::*;

/// A socket's file, gone when the test is over.
struct File(PathBuf);

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn file() -> File {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    File(std::env::temp_dir().join(format!("rtop-control-{}-{number}", std::process::id())))
}

/// A control socket that serves each connection with `serve`, which is given the request's line.
fn serving(serve: impl Fn(&mut UnixStream, String) + Send + 'static) -> File {
    let file = file();
    let listener = UnixListener::bind(&file.0).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut line = String::new();
            let _ = BufReader::new(stream.try_clone().unwrap()).read_line(&mut line);
            serve(&mut stream, line);
        }
    });
    file
}

fn saying(text: impl Into<Vec<u8>>) -> File {
    let text = text.into();
    serving(move |stream, _| drop(stream.write_all(&text)))
}

const STACKS: Request = Request::Stacks { worker: None };

fn ask(file: &File, timeout: Duration) -> (Result<Answer, ControlError>, Vec<String>) {
    let mut said = Vec::new();
    let answer = Control::at(&file.0, timeout).ask(&STACKS, Duration::ZERO, &mut |text| {
        said.extend(text.map(str::to_owned));
        true
    });
    (answer, said)
}

const LONG: Duration = Duration::from_secs(20);

#[test]
fn a_request_is_a_line_and_its_answer_comes_after_what_is_said_meanwhile() {
    let file = serving(|stream, line| {
        assert_eq!(line, "{\"do\":\"stacks\"}\n");
        stream.write_all(b"{\"progress\":\"one of two\"}\n{\"progress\":\"two\\u001b[2J\"}\n{\"done\":").unwrap();
        stream.write_all(b"{\"stacks\":{\"threads\":[{\"worker\":3}]}}}\n").unwrap();
        let _ = stream.read(&mut [0]);
    });
    let (answer, said) = ask(&file, LONG);
    let Answer::Stacks(stacks) = answer.unwrap() else { panic!("another answer") };
    assert_eq!(stacks.threads[0].worker, 3);
    assert_eq!(said, ["one of two", "two [2J"], "texts are plain lines");
}

#[test]
fn what_goes_wrong_is_said_in_a_line() {
    for (sent, told) in [
        ("{\"failed\":\"worker 9 is not there\"}\n", "worker 9 is not there"),
        ("{\"failed\":\"\"}\n", "the server refused it and does not say why"),
        ("", "closed the control connection before it had answered"),
        ("{\"done\":{\"text\":\"hal", "closed the control connection before it had answered"),
        ("HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak the control protocol"),
        ("{\"version\":\"2\",\"workers\":[]}\n", "does not speak the control protocol"),
        ("\n", "does not speak the control protocol"),
    ] {
        let error = ask(&saying(sent), LONG).0.unwrap_err().to_string();
        assert!(error.contains(told), "{sent}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn a_server_that_hangs_is_given_up_in_time_also_while_it_says_something() {
    let hanging = serving(|stream, _| drop(stream.read(&mut [0])));
    let error = ask(&hanging, Duration::from_millis(50)).0.unwrap_err();
    assert!(matches!(error, ControlError::TimedOut { .. }), "{error}");
    let busy = serving(|stream, _| while stream.write_all(b"{\"progress\":\"x\"}\n").is_ok() {});
    let error = ask(&busy, Duration::from_millis(300)).0.unwrap_err();
    assert!(matches!(error, ControlError::TimedOut { .. } | ControlError::TooLarge), "{error}");
}

#[test]
fn who_asked_can_give_up() {
    let file = saying("{\"progress\":\"1 s\"}\n{\"progress\":\"2 s\"}\n{\"done\":{\"text\":\"x\"}}\n");
    let answer = Control::at(&file.0, LONG).ask(&STACKS, Duration::ZERO, &mut |_| false);
    assert!(matches!(answer, Err(ControlError::GivenUp)));
    let silent = serving(|stream, _| drop(stream.read(&mut [0])));
    let answer = Control::at(&silent.0, LONG).ask(&STACKS, Duration::ZERO, &mut |_| false);
    assert!(matches!(answer, Err(ControlError::GivenUp)), "also of a server that says nothing");
}

#[test]
fn a_socket_that_is_not_there_is_said_with_what_to_do() {
    let error = ask(&file(), LONG).0.unwrap_err().to_string();
    assert!(error.contains("No such file") && error.contains("is the server running?"), "{error}");
}

fn found(document: &str, target: &str) -> Result<Control, ControlError> {
    let snapshot = serde_json::from_str(document).unwrap();
    Control::of_document(&snapshot, &target.parse().unwrap(), &STACKS, LONG)
}

#[test]
fn a_stats_document_names_the_socket_or_says_why_there_is_none() {
    let control = found(r#"{"server":"rwsgi","control":"/run/a.sock"}"#, ":9191").unwrap();
    assert_eq!(control.name(), "/run/a.sock");
    for (document, target, told) in [
        (r#"{"server":"rwsgi"}"#, ":9191", "start it with --control PATH"),
        (r#"{"version":"2.0.31"}"#, ":9191", "uWSGI does not tell stacks"),
        (r#"{"server":"rwsgi","control":"/nonexistent/a.sock"}"#, "192.0.2.1:9191", "on another machine"),
    ] {
        let error = found(document, target).unwrap_err().to_string();
        assert!(error.contains(told), "{document}: {error}");
    }
}

#[test]
fn an_address_may_itself_be_a_control_socket() {
    let file = serving(|stream, line| {
        let request: Request = serde_json::from_str(&line).unwrap();
        let answer: &[u8] = match request {
            Request::Stats => b"{\"done\":{\"stats\":{\"version\":\"1\",\"pid\":7,\"workers\":[]}}}\n",
            _ => b"{\"done\":{\"text\":\"x\"}}\n",
        };
        stream.write_all(answer).unwrap();
        let held = stream.try_clone().unwrap();
        // It stays open for the next request.
        thread::spawn(move || {
            let mut held = held;
            held.read(&mut [0])
        });
    });
    let target: Target = file.0.to_str().unwrap().parse().unwrap();
    let mut fetcher = Fetcher::new(target.clone(), LONG);
    for _ in 0..2 {
        assert_eq!(fetcher.fetch().unwrap().snapshot.pid, 7);
        assert!(fetcher.speaks_control());
    }
    let control = Control::find(None, &target, &STACKS, LONG).unwrap();
    assert_eq!(control.ask(&STACKS, Duration::ZERO, &mut |_| true).unwrap(), Answer::Text("x".to_owned()));
}

#[test]
fn a_stats_socket_that_is_a_file_is_read_as_ever() {
    let file = file();
    let listener = UnixListener::bind(&file.0).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            stream.unwrap().write_all(b"{\"version\":\"1\",\"pid\":7,\n\"workers\":[]}\n").unwrap();
        }
    });
    let mut fetcher = Fetcher::new(file.0.to_str().unwrap().parse().unwrap(), LONG);
    assert_eq!(fetcher.fetch().unwrap().snapshot.pid, 7);
    assert!(!fetcher.speaks_control());
}

/// A stats server whose document names the control socket that is in `names`.
fn naming(names: &Arc<Mutex<PathBuf>>) -> File {
    let names = Arc::clone(names);
    let file = file();
    let listener = UnixListener::bind(&file.0).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let path = names.lock().unwrap().clone();
            let text = format!(
                "{{\"server\":\"rwsgi\",\"version\":\"1\",\"pid\":7,\"control\":\"{}\",\n\"workers\":[]}}\n",
                path.display()
            );
            stream.unwrap().write_all(text.as_bytes()).unwrap();
        }
    });
    file
}

fn asked(asker: &Arc<Asker>) -> Result<Answer, ControlError> {
    let (sender, said) = std::sync::mpsc::channel();
    let request = Request::Reload { how: Default::default() };
    let ask = Ask { target: 0, ticket: 1, request, longer: LONG, given_up: Arc::default() };
    asker.ask(ask, move |told| sender.send(told).is_ok()).unwrap();
    match said.recv_timeout(LONG).unwrap().said {
        ControlEvent::Answer(answer) => answer,
        ControlEvent::Progress(text) => panic!("{text}"),
    }
}

#[test]
fn a_server_that_was_started_again_is_asked_on_its_new_socket() {
    let old = saying("{\"done\":{\"text\":\"old\"}}\n");
    let names = Arc::new(Mutex::new(old.0.clone()));
    let stats = naming(&names);
    let asker = Arc::new(Asker::new(vec![stats.0.to_str().unwrap().parse().unwrap()], None, LONG));
    assert_eq!(asked(&asker).unwrap(), Answer::Text("old".to_owned()));
    let new = saying("{\"done\":{\"text\":\"new\"}}\n");
    *names.lock().unwrap() = new.0.clone();
    drop(old);
    assert_eq!(asked(&asker).unwrap(), Answer::Text("new".to_owned()));
}

#[test]
fn a_socket_that_was_named_is_not_asked_when_it_is_another_server_s() {
    let stats = naming(&Arc::default());
    let of_pid = |pid: u32| {
        serving(move |stream, line| {
            let done = match line.contains("stats") {
                true => format!("{{\"done\":{{\"stats\":{{\"version\":\"1\",\"pid\":{pid},\"workers\":[]}}}}}}\n"),
                false => "{\"done\":{\"text\":\"x\"}}\n".to_owned(),
            };
            stream.write_all(done.as_bytes()).unwrap();
        })
    };
    for (pid, is_done) in [(7, true), (8, false)] {
        let control = of_pid(pid);
        let target = stats.0.to_str().unwrap().parse().unwrap();
        match asked(&Arc::new(Asker::new(vec![target], Some(control.0.clone()), LONG))) {
            Ok(_) => assert!(is_done, "{pid}"),
            Err(error) => assert!(!is_done && error.to_string().contains("server 8, and server 7 is shown"), "{error}"),
        }
    }
}

fn hostile_text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z./:]{0,12}", ".{0,12}", Just("\u{1b}[2J\u{202e}\n".to_owned()), Just("é".repeat(3_000))]
}

fn frames() -> impl Strategy<Value = Vec<Frame>> {
    let frame = (hostile_text(), hostile_text(), any::<u32>());
    prop::collection::vec(frame.prop_map(|(function, file, line)| Frame { function, file, line }), 0..6)
}

prop_compose! {
    fn any_profile()(
        frames in frames(),
        stacks in prop::collection::vec(
            (hostile_text(), prop::collection::vec(any::<u32>().prop_map(|place| place % 9), 0..6), any::<u64>()), 0..6),
        samples in any::<u64>(),
        micros in any::<u64>(),
    ) -> Profile {
        let stack = |(route, frames, count)| ProfileStack { route, state: ThreadState::Gil, frames, count };
        Profile { micros, samples, frames, stacks: stacks.into_iter().map(stack).collect(), ..Profile::default() }
    }
}

proptest! {
    #[test]
    fn no_answer_has_texts_that_a_terminal_obeys_or_frames_that_are_not_there(
        profile in any_profile(), name in hostile_text(), problem in hostile_text(), frames in frames(),
    ) {
        let mut answer = Answer::Profile(profile);
        answer::clean(&mut answer);
        let Answer::Profile(profile) = answer else { unreachable!() };
        let mut sum = 0u64;
        for stack in &profile.stacks {
            prop_assert!(stack.frames.iter().all(|place| (*place as usize) < profile.frames.len()));
            prop_assert_eq!(&stack.route, &format::one_line(&stack.route));
            sum = sum.checked_add(stack.count).unwrap();
        }
        prop_assert_eq!(sum, profile.samples);
        let thread = ThreadStack { name, problem, frames, ..ThreadStack::default() };
        let mut answer = Answer::Stacks(Stacks { threads: vec![thread] });
        answer::clean(&mut answer);
        let Answer::Stacks(Stacks { threads }) = answer else { unreachable!() };
        for ThreadStack { name, problem, frames, .. } in &threads {
            let framed = frames.iter().flat_map(|frame| [&frame.function, &frame.file]);
            for text in [name, problem].into_iter().chain(framed) {
                prop_assert!(!text.contains(['\u{1b}', '\n', '\u{202e}']), "{:?}", text);
            }
        }
    }

    #[test]
    fn any_bytes_are_an_answer_or_a_line_that_says_why_not(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..80).boxed(),
            "\\{\"(done|failed|progress)\":[0-9{}\\[\\]\"a-z,:.-]{0,60}\\}\n".prop_map(String::into_bytes).boxed(),
        ],
    ) {
        let file = saying(bytes);
        if let Err(error) = ask(&file, LONG).0 {
            let told = error.to_string();
            prop_assert!(!told.is_empty() && told.len() < 1_400 && !told.contains(char::is_control), "{:?}", told);
        }
    }
}
