//! `drillbit config`: the configuration, checked or shown; and how every command gets it.

use std::{
    env,
    io::{self, Write as _},
    path::PathBuf,
};

use clap::{Args, Subcommand};

use super::{Exit, Failure};
use crate::config::{Flags, Settings};

const AFTER_HELP: &str = "\
Flags beat the environment (DRILLBIT_NODE_USER_PORT is user_port of the section node), which beats
the file, which beats the defaults. `drillbit config show` prints every key with its meaning and
default, and is itself a valid file: a template.";

/// What can be done with the configuration.
#[derive(Debug, Subcommand)]
#[command(after_help = AFTER_HELP)]
pub(super) enum ConfigCommand {
    /// Say whether the configuration is right, and what is wrong where (exit code 1)
    Check,
    /// Print the configuration in effect: every key, its meaning, default and origin
    Show,
}

/// Where the configuration comes from.
#[derive(Debug, Args)]
pub(super) struct ConfigArguments {
    /// Configuration file (TOML)
    #[arg(long, global = true, value_name = "FILE", env = "DRILLBIT_CONFIG")]
    config: Option<PathBuf>,
}

impl ConfigArguments {
    /// The configuration, over which `flags` have the last word.
    pub(super) fn load(&self, flags: Flags) -> Result<Settings, Failure> {
        // An empty variable is as good as none.
        let file = self.config.as_deref();
        let file = file.filter(|path| !path.as_os_str().is_empty());
        // What is not text names no key and is no value.
        let environment = env::vars_os().filter_map(|(name, value)| {
            let (name, value) = (name.into_string().ok()?, value.into_string().ok()?);
            Some((name, value))
        });
        Settings::load(file, environment, flags)
            .map_err(|problems| Failure::new(Exit::Usage, problems))
    }

    fn checked(&self) -> Result<Settings, Failure> {
        self.load(Flags::default()).map_err(|failure| Failure {
            exit: Exit::Failed,
            ..failure
        })
    }
}

/// Runs a `config` command.
pub(super) fn run(command: &ConfigCommand, arguments: &ConfigArguments) -> Result<(), Failure> {
    let settings = arguments.checked()?;
    let text = match command {
        ConfigCommand::Check => {
            check_files(&settings)?;
            let notes = settings.config.node_options().notes().into_iter();
            let notes = notes.map(|note| format!("note: {note}\n"));
            let valid = "the configuration is valid\n".to_owned();
            notes.chain([valid]).collect()
        }
        ConfigCommand::Show => settings.show(),
    };
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes());
    written
        .and_then(|()| stdout.flush())
        .map_err(|error| Failure::write(&error))
}

/// Certificates and users must be usable, too.
fn check_files(settings: &Settings) -> Result<(), Failure> {
    let problems = settings.config.security().problems();
    if problems.is_empty() {
        return Ok(());
    }
    let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
    Err(Failure::new(Exit::Failed, lines.join("\n")))
}

/// A path as the value of a key.
pub(super) fn text(path: Option<&PathBuf>) -> Option<String> {
    path.map(|path| path.to_string_lossy().into_owned())
}
