//! What Prometheus answers: numbers by server and by what they are.

use std::collections::HashMap;

use serde::Deserialize;

use super::{Part, part_of};
use crate::format;
use crate::source::SourceError;
use crate::source::fleet::{Figure, Figures};

/// What tells servers apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Instance {
    /// The job that scrapes it.
    pub(crate) job: String,
    /// Its address as Prometheus has it, or what it is called there.
    pub(crate) instance: String,
}

/// A server's numbers at one moment; of the [`Part::Together`]s, of all servers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Row {
    /// Which server; `None` for all together.
    pub(crate) instance: Option<Instance>,
    /// When, unix seconds.
    pub(crate) at: f64,
    /// Whether Prometheus could scrape it; `None` when it is not told.
    pub(crate) up: Option<bool>,
    /// Its numbers; their `at` is of no meaning.
    pub(crate) figures: Figures,
    /// Percentiles of all servers, µs.
    pub(crate) together: [Option<f64>; 3],
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    data: Option<Data>,
    #[serde(default)]
    error: Option<String>,
}

#[derive(Deserialize)]
struct Data {
    #[serde(default)]
    result: Vec<Series>,
}

#[derive(Deserialize)]
struct Series {
    metric: Labels,
    #[serde(default)]
    value: Option<(f64, Number)>,
    #[serde(default)]
    values: Vec<(f64, Number)>,
}

#[derive(Deserialize)]
struct Labels {
    #[serde(default)]
    job: String,
    #[serde(default)]
    instance: String,
    #[serde(default)]
    rtop: String,
}

/// A number as it is written: a string, for there are NaN and infinities.
#[derive(Deserialize)]
#[serde(from = "&str")]
struct Number(Option<f64>);

impl From<&str> for Number {
    fn from(text: &str) -> Self {
        Self(text.parse().ok().filter(|number: &f64| number.is_finite()))
    }
}

/// Reads the answer to `query`: a row for each server.
pub(super) fn instant(body: &[u8]) -> Result<Vec<Row>, SourceError> {
    rows(body).map(|rows| rows.into_values().collect())
}

/// Reads the answer to `query_range`: a row for each server and moment, in the order of time.
pub(super) fn range(body: &[u8]) -> Result<Vec<Row>, SourceError> {
    let mut rows: Vec<Row> = rows(body)?.into_values().collect();
    rows.sort_by(|a, b| a.at.total_cmp(&b.at));
    Ok(rows)
}

/// What an answer says is wrong, if it says so.
pub(super) fn error(body: &[u8]) -> Option<SourceError> {
    let answer: Answer = serde_json::from_slice(body).ok()?;
    answer.error.map(|why| SourceError::Refused(format::one_line(&why)))
}

type Rows = HashMap<(Option<Instance>, u64), Row>;

fn rows(body: &[u8]) -> Result<Rows, SourceError> {
    let answer: Answer = serde_json::from_slice(body).map_err(|error| {
        if error.is_eof() {
            SourceError::Half(body.len())
        } else {
            SourceError::NotPrometheus(format::one_line(&error.to_string()))
        }
    })?;
    if let Some(why) = answer.error {
        return Err(SourceError::Refused(format::one_line(&why)));
    }
    let data = answer.data.ok_or_else(|| SourceError::NotPrometheus("it has no data".to_owned()))?;
    let mut rows = Rows::new();
    for Series { metric, value, values } in data.result {
        let Some(part) = part_of(&metric.rtop) else { continue };
        let together = matches!(part, Part::Together(_));
        let instance = (!together).then_some(Instance { job: metric.job, instance: metric.instance });
        for (at, Number(number)) in value.into_iter().chain(values) {
            let row = rows.entry((instance.clone(), at.to_bits())).or_default();
            (row.instance, row.at) = (instance.clone(), at);
            match part {
                // What stands first is ours, and counts.
                Part::Figure(figure) if row.figures.get(figure).is_none() => {
                    let share = matches!(figure, Figure::Errors | Figure::Utilization);
                    let number = number.filter(|number| *number >= 0.0);
                    row.figures.set(figure, number.map(|number| if share { number.min(1.0) } else { number }));
                }
                Part::Figure(_) => {}
                Part::Generation => row.figures.generation = number.map(|number| number as u32),
                Part::Up if row.up.is_none() => row.up = number.map(|number| number > 0.0),
                Part::Up => {}
                Part::Together(place) if row.together[place].is_none() => row.together[place] = number,
                Part::Together(_) => {}
            }
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INSTANT: &str = r#"{"status":"success","data":{"resultType":"vector","result":[
        {"metric":{"job":"app","instance":"web1:9191","rtop":"rps"},"value":[1795227000.5,"12.5"]},
        {"metric":{"job":"app","instance":"web1:9191","rtop":"p99"},"value":[1795227000.5,"NaN"]},
        {"metric":{"job":"app","instance":"web1:9191","rtop":"up"},"value":[1795227000.5,"1"]},
        {"metric":{"job":"app","instance":"web1:9191","rtop":"generation"},"value":[1795227000.5,"3"]},
        {"metric":{"job":"app","instance":"web2:9191","rtop":"up"},"value":[1795227000.5,"0"]},
        {"metric":{"rtop":"all_p95"},"value":[1795227000.5,"80000"]},
        {"metric":{"rtop":"of a later version"},"value":[1795227000.5,"1"]}]}}"#;

    #[test]
    fn numbers_become_rows() {
        let mut rows = instant(INSTANT.as_bytes()).unwrap();
        rows.sort_by(|a, b| a.instance.cmp(&b.instance));
        let [all, web1, web2] = rows.as_slice() else { panic!("{rows:?}") };
        assert_eq!((all.instance.as_ref(), all.together), (None, [None, Some(80_000.0), None]));
        assert_eq!((web1.figures.get(Figure::Rps), web1.figures.get(Figure::P99)), (Some(12.5), None));
        assert_eq!((web1.up, web1.figures.generation), (Some(true), Some(3)));
        assert_eq!((web2.up, web2.figures.get(Figure::Rps)), (Some(false), None));
    }

    #[test]
    fn the_past_has_a_row_for_each_moment() {
        let body = r#"{"status":"success","data":{"resultType":"matrix","result":[
            {"metric":{"job":"a","instance":"w","rtop":"rps"},"values":[[60,"2"],[30,"1"]]},
            {"metric":{"job":"a","instance":"w","rtop":"rss"},"values":[[60,"7"]]}]}}"#;
        let rows = range(body.as_bytes()).unwrap();
        let told: Vec<_> =
            rows.iter().map(|row| (row.at, row.figures.get(Figure::Rps), row.figures.get(Figure::Rss))).collect();
        assert_eq!(told, [(30.0, Some(1.0), None), (60.0, Some(2.0), Some(7.0))]);
    }

    #[test]
    fn what_prometheus_refuses_is_told_in_its_words() {
        let refused = br#"{"status":"error","errorType":"bad_data","error":"parse error: unexpected \"]\""}"#;
        let error = instant(refused).unwrap_err().to_string();
        assert_eq!(error, "Prometheus: parse error: unexpected \"]\"");
        assert!(matches!(super::error(refused), Some(SourceError::Refused(_))));
        assert!(super::error(b"<html>").is_none());
        for other in [&b"<html>"[..], b"{}", b"[]"] {
            assert!(matches!(instant(other), Err(SourceError::NotPrometheus(_))));
        }
        assert!(matches!(instant(&INSTANT.as_bytes()[..50]), Err(SourceError::Half(50))));
    }
}
