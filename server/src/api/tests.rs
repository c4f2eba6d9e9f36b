use pyo3::prelude::*;
use pyo3::types::PyModule;

use super::names::{NAMES, Standing};

#[test]
fn the_table_names_every_function_of_the_module() {
    crate::wsgi::interpreter::start(None).unwrap();
    Python::attach(|py| {
        let module = PyModule::new(py, "uwsgi").unwrap();
        super::process::add(&module).unwrap();
        super::signals::add(&module).unwrap();
        super::locks::add(&module).unwrap();
        super::metrics::add(&module).unwrap();
        super::cache::add(&module).unwrap();
        super::mules::add(&module).unwrap();
        super::rpc::add(&module).unwrap();
        super::request::add(&module).unwrap();
        super::workers::add(&module).unwrap();
        for (name, _) in module.dict() {
            let name: String = name.extract().unwrap();
            if !name.starts_with("__") {
                let found = super::names::find(&name);
                assert!(matches!(found, Some(Standing::Works(_))), "{name} is missing in the table");
            }
        }
    });
    let mut names: Vec<_> = NAMES.iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), NAMES.len(), "a name stands twice");
}
