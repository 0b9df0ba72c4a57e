//! Which Drillbit a command talks to, as whom, over what.

use std::{
    env,
    fs::File,
    path::{Path, PathBuf},
};

use clap::Args;
use rpc_bus::auth::Password;

use super::{
    Exit, Failure,
    config::{ConfigArguments, text},
    password::first_line,
    tls,
};
use crate::{
    config::{ClientSection, Config, Flags},
    connector::{Connector, Login},
    shell,
    threads::Threads,
};

/// Holds the password, so that it is in no list of processes.
const PASSWORD_VARIABLE: &str = "DRILLBIT_PASSWORD";

/// Arguments of every command that connects.
#[derive(Debug, Args)]
pub(super) struct ConnectArguments {
    /// User address of the Drillbit, or of several, with commas in between: the first that answers is taken. The port
    /// may be left out [default: 127.0.0.1:31010]
    #[arg(long, value_name = "HOST:PORT")]
    connect: Option<String>,
    /// User name
    #[arg(short, long, value_name = "NAME")]
    user: Option<String>,
    /// Read the password from the first line of a file
    #[arg(long, value_name = "FILE", conflicts_with = "ask_password")]
    password_file: Option<PathBuf>,
    /// Ask for the password
    #[arg(short = 'W', long)]
    ask_password: bool,
    /// Authenticate only so: SCRAM-SHA-256, or PLAIN, which shows the password to the Drillbit and, without
    /// TLS, to everybody on the way [default: the strongest that is offered, without TLS never PLAIN to another
    /// machine]
    #[arg(long, value_name = "NAME", value_parser = ["SCRAM-SHA-256", "PLAIN"], hide_possible_values = true)]
    mechanism: Option<String>,
    #[command(flatten)]
    tls: TlsArguments,
}

/// TLS towards the Drillbit; each of these switches it on.
#[derive(Debug, Args)]
#[command(next_help_heading = "TLS")]
struct TlsArguments {
    /// Speak TLS
    #[arg(long)]
    tls: bool,
    /// Trust the authorities of this file (PEM), not those of the system
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// Show this certificate (PEM), followed by those that it was issued by
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// Private key of the certificate (PEM)
    #[arg(long, value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// Host that the server's certificate must be for, if not the one that is connected to
    #[arg(long, value_name = "HOST")]
    tls_server_name: Option<String>,
    /// Take any host's certificate, if only its authority is trusted
    #[arg(long)]
    tls_no_host_verification: bool,
}

impl TlsArguments {
    fn flags(&self, flags: Flags) -> Flags {
        let files = [&self.tls_ca, &self.tls_cert, &self.tls_key];
        let named = files.iter().any(|file| file.is_some()) || self.tls_server_name.is_some();
        let tls = self.tls || named || self.tls_no_host_verification;
        let [ca, certificates, key] = files.map(|file| text(file.as_ref()));
        let (host, any_host) = (self.tls_server_name.clone(), self.tls_no_host_verification);
        flags
            .with("--tls", ("client", "tls"), tls.then_some(true))
            .with("--tls-ca", ("client", "tls_ca"), ca)
            .with("--tls-cert", ("client", "tls_certificates"), certificates)
            .with("--tls-key", ("client", "tls_key"), key)
            .with("--tls-server-name", ("client", "tls_server_name"), host)
            .with(
                "--tls-no-host-verification",
                ("client", "tls_verify_host_name"),
                any_host.then_some(false),
            )
    }
}

impl ConnectArguments {
    /// Threads, and how to connect with them; `more` are further flags of the command.
    pub(super) fn connector(
        &self,
        more: Flags,
        config: &ConfigArguments,
    ) -> Result<(Threads, Connector), Failure> {
        let config = config.load(self.flags(more))?.config;
        let password = self.password(&config.client)?;
        let threads = Threads::start(&config.threads()).map_err(|error| {
            Failure::new(Exit::Failed, format_args!("cannot start threads: {error}"))
        })?;
        let connector = connector(config, &threads, password)?;
        Ok((threads, connector))
    }

    fn flags(&self, flags: Flags) -> Flags {
        let file = text(self.password_file.as_ref());
        self.tls
            .flags(flags)
            .with("--connect", ("client", "connect"), self.connect.clone())
            .with("--user", ("client", "user"), self.user.clone())
            .with("--password-file", ("client", "password_file"), file)
            .with(
                "--mechanism",
                ("client", "mechanism"),
                self.mechanism.clone(),
            )
    }

    fn password(&self, client: &ClientSection) -> Result<Option<Password>, Failure> {
        if self.ask_password {
            return shell::ask_password("Password: ").map(Some);
        }
        match &client.password_file {
            Some(path) => read_password(path).map(Some),
            None => Ok(env::var(PASSWORD_VARIABLE).ok().map(Password::from)),
        }
    }
}

fn connector(
    config: Config,
    threads: &Threads,
    password: Option<Password>,
) -> Result<Connector, Failure> {
    let tls = tls::client(&config.client).map_err(|error| Failure::new(Exit::Usage, error))?;
    let beat_interval = config.client.beat_interval();
    let ClientSection {
        connect,
        user,
        schema,
        mechanism,
        ..
    } = config.client;
    let login = Login {
        user,
        password,
        mechanism: mechanism.map(Into::into),
        schema,
        beat_interval,
        tls,
    };
    Ok(Connector::remote(&connect, threads.bus(), login))
}

fn read_password(path: &Path) -> Result<Password, Failure> {
    File::open(path).and_then(first_line).map_err(|error| {
        Failure::new(
            Exit::Failed,
            format_args!("cannot read the password file {}: {error}", path.display()),
        )
    })
}
