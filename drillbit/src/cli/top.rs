//! `drillbit top`: the cluster on a screen that follows it.

use std::{
    io::{self, IsTerminal},
    thread,
    time::Duration,
};

use clap::Args;
use client::Client;
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
};
use tokio::{sync::mpsc, time::Instant};

use super::{
    Exit, Failure,
    config::ConfigArguments,
    connect::ConnectArguments,
    status::{interval, status},
};
use crate::{
    config::Flags,
    connector::Connector,
    signals::Signals,
    status::{Screen, draw},
};

const AFTER_HELP: &str = "\
Nodes with their health and round trips, peers in the data plane with their windows and credits, open streams,
running queries.
If the node goes away, keeps trying to reach it.

Keys: q, Esc or Ctrl-C ends it, p or space holds the picture, r looks at once.
Without a terminal, use drillbit status --watch.";

/// Arguments of `top`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct TopArguments {
    #[command(flatten)]
    connect: ConnectArguments,
    /// Time between two looks, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = interval)]
    interval: f64,
}

/// Shows the screen until it is left.
pub(super) fn run(arguments: &TopArguments, config: &ConfigArguments) -> Result<(), Failure> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        let message = "top needs a terminal; drillbit status --watch does not";
        return Err(Failure::new(Exit::Usage, message));
    }
    let (threads, connector) = arguments.connect.connector(Flags::default(), config)?;
    threads.block_on(arguments.show(&connector))
}

/// What a key stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Quit,
    Hold,
    LookNow,
    Redraw,
}

impl TopArguments {
    async fn show(&self, connector: &Connector) -> Result<(), Failure> {
        // What is wrong at once, such as a wrong password, is told in the ordinary way.
        let client = connector.connect().await?;
        let signals = Signals::listen().map_err(|error| Failure::new(Exit::Failed, error))?;
        let wishes = read_keys()?;
        let terminal = ratatui::try_init().map_err(|error| Failure::write(&error))?;
        let top = Top {
            connector,
            interval: Duration::from_secs_f64(self.interval),
            client: Some(client),
            screen: Screen::new(&connector.address),
            terminal,
            signals,
            wishes,
        };
        let outcome = top.run().await;
        ratatui::restore();
        outcome
    }
}

struct Top<'a> {
    connector: &'a Connector,
    interval: Duration,
    /// `None` while the node is away.
    client: Option<Client>,
    screen: Screen,
    terminal: DefaultTerminal,
    signals: Signals,
    wishes: mpsc::Receiver<Wish>,
}

impl Top<'_> {
    async fn run(mut self) -> Result<(), Failure> {
        self.look().await;
        let mut next = Instant::now() + self.interval;
        loop {
            let screen = &self.screen;
            let drawn = self.terminal.draw(|frame| draw(frame, screen));
            drawn.map_err(|error| Failure::write(&error))?;
            let wish = tokio::select! {
                () = tokio::time::sleep_until(next) => None,
                wish = self.wishes.recv() => Some(wish.unwrap_or(Wish::Quit)),
                signal = self.signals.next() => return Err(Failure::silent(signal.exit())),
            };
            match wish {
                Some(Wish::Quit) => return Ok(()),
                Some(Wish::Redraw) => continue,
                Some(Wish::Hold) => self.screen.is_held = !self.screen.is_held,
                None if self.screen.is_held => {}
                Some(Wish::LookNow) | None => self.look().await,
            }
            if wish != Some(Wish::Hold) {
                next = Instant::now() + self.interval;
            }
        }
    }

    /// Takes a new picture; connects again if that is needed.
    async fn look(&mut self) {
        let seen = match &self.client {
            Some(client) => status(client, self.connector).await,
            None => self.connect_and_look().await,
        };
        match seen {
            Ok(status) => self.screen.show(status),
            Err(failure) => {
                self.client = None;
                self.screen.lost(failure.message.unwrap_or_default());
            }
        }
    }

    async fn connect_and_look(&mut self) -> Result<crate::status::StatusView, Failure> {
        let client = self.connector.connect().await?;
        let seen = status(&client, self.connector).await;
        self.client = Some(client);
        seen
    }
}

/// Reading keys blocks, so it has a thread, which ends with the program.
fn read_keys() -> Result<mpsc::Receiver<Wish>, Failure> {
    let (sender, wishes) = mpsc::channel(8);
    let read = move || {
        while let Ok(event) = event::read() {
            if wish(&event).is_some_and(|wish| sender.blocking_send(wish).is_err()) {
                return;
            }
        }
    };
    let thread = thread::Builder::new().name("keys".to_owned()).spawn(read);
    thread.map_err(|error| Failure::new(Exit::Failed, error))?;
    Ok(wishes)
}

fn wish(event: &Event) -> Option<Wish> {
    match event {
        Event::Resize(..) => Some(Wish::Redraw),
        Event::Key(key) if key.kind == KeyEventKind::Press => wish_of_key(key),
        _ => None,
    }
}

fn wish_of_key(key: &KeyEvent) -> Option<Wish> {
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Wish::Quit),
        KeyCode::Char('q') | KeyCode::Esc => Some(Wish::Quit),
        KeyCode::Char('p' | ' ') => Some(Wish::Hold),
        KeyCode::Char('r') => Some(Wish::LookNow),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_mean_what_the_help_says() {
        let press = |code, modifiers| wish(&Event::Key(KeyEvent::new(code, modifiers)));
        let plain = |c| press(KeyCode::Char(c), KeyModifiers::NONE);
        assert_eq!(plain('q'), Some(Wish::Quit));
        assert_eq!(press(KeyCode::Esc, KeyModifiers::NONE), Some(Wish::Quit));
        assert_eq!(
            press(KeyCode::Char('c'), KeyModifiers::CONTROL),
            Some(Wish::Quit)
        );
        assert_eq!(
            (plain('p'), plain(' ')),
            (Some(Wish::Hold), Some(Wish::Hold))
        );
        assert_eq!(plain('r'), Some(Wish::LookNow));
        assert_eq!(plain('c'), None);
        assert_eq!(wish(&Event::Resize(80, 24)), Some(Wish::Redraw));
    }
}
