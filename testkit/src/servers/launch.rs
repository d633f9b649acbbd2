use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// What to start, and how.
#[derive(Clone)]
pub struct Launch {
    pub(super) name: String,
    program: PathBuf,
    folder: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    without: Vec<&'static str>,
    pub(super) patience: Duration,
}

impl Launch {
    /// `program` in `folder`, which is its working folder and takes its log, `NAME.log`.
    pub fn new(name: impl Into<String>, program: impl Into<PathBuf>, folder: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            program: program.into(),
            folder: folder.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            without: Vec::new(),
            patience: Duration::from_secs(60),
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn arguments<Argument: Into<OsString>>(
        mut self,
        arguments: impl IntoIterator<Item = Argument>,
    ) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Sets a variable of the environment.
    #[must_use]
    pub fn environment(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Hides the variables whose names begin with `prefix`, so that settings of the developer's machine do not leak
    /// into the test. What [`environment`](Self::environment) sets stays.
    #[must_use]
    pub fn without_environment(mut self, prefix: &'static str) -> Self {
        self.without.push(prefix);
        self
    }

    /// How long the server may take until it answers. Default: 60 seconds; machines that test are small and busy, and
    /// whoever waits longer than needed loses nothing but the time of a failure.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The command, with its environment, without its input and output.
    pub(super) fn command(&self) -> Command {
        self.prepare(Command::new(&self.program))
    }

    /// The same command, which begins when it reads a line, and ends if its input does before. So there is no moment at
    /// which this process can die and leave a server behind that nobody watches yet.
    pub(super) fn command_behind_gate(&self) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", r#"read -r line && exec "$@" </dev/null"#, "gate"]).arg(&self.program);
        self.prepare(command)
    }

    fn prepare(&self, mut command: Command) -> Command {
        for (name, _) in std::env::vars_os() {
            if self.without.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        let environment = self.environment.iter().map(|(name, value)| (name, value));
        command.args(&self.arguments).envs(environment).current_dir(&self.folder);
        command
    }

    /// Where its output goes.
    pub(super) fn log(&self) -> PathBuf {
        self.folder.join(format!("{}.log", self.name))
    }
}

/// Not the arguments: a password may be among them.
impl fmt::Debug for Launch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Launch").field("name", &self.name).finish_non_exhaustive()
    }
}
