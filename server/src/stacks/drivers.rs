//! What a thread was doing, from what its handler has found out and from its frames: which of them are a database's.

use rwsgi_stats::control::ThreadState;

use super::answer::{Answer, Facts};

/// In the paths of modules that talk to a database, between slashes.
const MODULES: &[&str] = &[
    "/psycopg/",
    "/psycopg2/",
    "/psycopg_pool/",
    "/asyncpg/",
    "/pg8000/",
    "/MySQLdb/",
    "/pymysql/",
    "/mysql/connector/",
    "/sqlite3/",
    "/pymongo/",
    "/redis/",
    "/valkey/",
    "/pymemcache/",
    "/cassandra/",
    "/clickhouse_driver/",
    "/clickhouse_connect/",
    "/elasticsearch/",
    "/elastic_transport/",
    "/opensearchpy/",
    "/pymssql/",
    "/oracledb/",
    "/pyodbc/",
    "/django/db/backends/",
    "/sqlalchemy/engine/",
];

/// Ports that databases have by default.
const PORTS: &[u16] = &[1433, 1521, 3306, 5432, 6379, 6432, 7687, 8123, 9000, 9042, 11211, 27017, 33060];

/// In the paths of sockets of databases.
const SOCKETS: &[&str] = &[".s.PGSQL.", "mysql", "mariadb", "redis", "valkey", "mongodb", "memcached"];

/// Whether a file is of a module that talks to a database.
#[must_use]
pub(crate) fn is_driver(file: &str) -> bool {
    MODULES.iter().any(|module| file.contains(module))
}

/// Whether an address, as the system has it, is a database's.
#[must_use]
pub(crate) fn is_database(address: &[u8]) -> bool {
    let Some((family, rest)) = address.split_first_chunk() else { return false };
    match i32::from(u16::from_ne_bytes(*family)) {
        nix::libc::AF_INET | nix::libc::AF_INET6 => {
            rest.first_chunk().is_some_and(|port| PORTS.contains(&u16::from_be_bytes(*port)))
        }
        nix::libc::AF_UNIX => {
            let path = String::from_utf8_lossy(rest);
            SOCKETS.iter().any(|name| path.contains(name))
        }
        _ => false,
    }
}

/// What the thread was doing. `in_driver` says that a frame of its is a driver's.
#[must_use]
pub(crate) fn state(answer: &Answer, in_driver: bool) -> ThreadState {
    let facts = answer.facts;
    if facts.has(Facts::HAS_GIL) {
        ThreadState::Running
    } else if facts.has(Facts::WAITS_FOR_GIL) {
        ThreadState::Gil
    } else if facts.has(Facts::WAITS_FOR_LOCK) {
        // A pool's, when all connections are taken: nobody asks the database.
        ThreadState::Lock
    } else if in_driver || is_database(&answer.peer) {
        ThreadState::Database
    } else if facts.has(Facts::WAITS) {
        ThreadState::Waiting
    } else {
        ThreadState::Native
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_are_known_by_their_directories() {
        for file in [
            "/srv/venv/lib/python3.12/site-packages/psycopg/waiting.py",
            "/usr/lib/python3/dist-packages/django/db/backends/utils.py",
            "/usr/lib/python3.11/sqlite3/dbapi2.py",
            "/v/site-packages/sqlalchemy/engine/default.py",
            "/v/site-packages/mysql/connector/network.py",
        ] {
            assert!(is_driver(file), "{file}");
        }
        for file in
            ["/srv/redis.py", "/srv/app/db/backends/x.py", "/v/sqlalchemy/pool/impl.py", "/srv/mypsycopg/x.py", ""]
        {
            assert!(!is_driver(file), "{file}");
        }
    }

    #[test]
    fn databases_are_known_by_their_addresses() {
        let inet =
            |port: u16| [&(nix::libc::AF_INET as u16).to_ne_bytes()[..], &port.to_be_bytes(), &[127, 0, 0, 1]].concat();
        let unix = |path: &str| [&(nix::libc::AF_UNIX as u16).to_ne_bytes()[..], path.as_bytes(), &[0]].concat();
        assert!(is_database(&inet(5432)) && !is_database(&inet(443)));
        assert!(is_database(&unix("/run/postgresql/.s.PGSQL.5432")) && !is_database(&unix("/run/app.sock")));
        assert!(!is_database(&[]) && !is_database(&[1]));
    }

    #[test]
    fn a_state_follows_from_what_was_found() {
        use ThreadState::{Database, Gil, Lock, Native, Running, Waiting};
        for (facts, in_driver, expected) in [
            (Facts::HAS_GIL | Facts::WAITS, true, Running),
            (Facts::WAITS_FOR_GIL, true, Gil),
            (Facts::WAITS_FOR_LOCK, true, Lock),
            (Facts::WAITS, true, Database),
            (Facts::default(), true, Database),
            (Facts::WAITS, false, Waiting),
            (Facts::default(), false, Native),
        ] {
            assert_eq!(state(&Answer { facts, ..Answer::default() }, in_driver), expected, "{facts:?}");
        }
    }
}
