//! Clients of databases that know nothing of this project: what another language and another driver do.

use crate::support::{fresh_name, mariadb_server, postgres_server};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// A program that runs SQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    /// Python's own module for SQLite.
    Python,
    /// PostgreSQL's shell.
    Psql,
    /// MariaDB's shell.
    MariaDb,
}

/// A client with a database of its own.
pub(crate) struct Own {
    client: Client,
    database: String,
    folder: TempDir,
}

impl Own {
    pub(crate) fn new(client: Client) -> Self {
        let own = Self { client, database: fresh_name(), folder: tempfile::tempdir().unwrap() };
        if client != Client::Python {
            own.run_in(None, &format!("CREATE DATABASE {}", own.database));
        }
        own
    }

    /// Its URL, for us.
    pub(crate) fn url(&self) -> String {
        let (database, folder) = (&self.database, self.folder.path());
        match self.client {
            Client::Python => format!("sqlite://{}?mode=rwc", folder.join("outbox.db").display()),
            Client::Psql => format!("postgres://postgres@{}/{database}", postgres_server().address()),
            Client::MariaDb => format!("mysql://root@{}/{database}", mariadb_server().address()),
        }
    }

    /// Runs statements, all or none.
    pub(crate) fn run(&self, sql: &str) {
        self.run_in(Some(&self.database), sql);
    }

    fn run_in(&self, database: Option<&str>, sql: &str) {
        let file = self.folder.path().join("script.sql");
        std::fs::write(&file, sql).unwrap();
        let mut command = match self.client {
            Client::Python => {
                let script = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.executescript(open(sys.argv[2]).read()); c.commit()";
                let mut command = Command::new("python3");
                command.args(["-c", script]).arg(self.folder.path().join("outbox.db")).arg(&file);
                command
            }
            Client::Psql => {
                let port = postgres_server().address().port().to_string();
                let mut command = Command::new("psql");
                command.args([
                    "-h",
                    "127.0.0.1",
                    "-p",
                    &port,
                    "-U",
                    "postgres",
                    "-v",
                    "ON_ERROR_STOP=1",
                    "-f",
                ]);
                command.arg(&file).arg(database.unwrap_or("postgres"));
                command
            }
            Client::MariaDb => {
                let port = mariadb_server().address().port().to_string();
                let mut command = Command::new("mariadb");
                command.args(["--no-defaults", "-h", "127.0.0.1", "-P", &port, "-u", "root"]).args(database);
                command.stdin(std::fs::File::open(&file).unwrap());
                command
            }
        };
        let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
        assert!(output.status.success(), "{}\n{sql}", String::from_utf8_lossy(&output.stderr));
    }
}
