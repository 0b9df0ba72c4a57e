//! The line editor: an input ends where its last statement does, and is kept in the history as a
//! whole.

use std::{borrow::Cow, fs};

use rpc_bus::auth::Password;
use rustyline::{
    ColorMode, Config, Editor, Helper,
    completion::Completer,
    config::Behavior,
    error::ReadlineError,
    highlight::{CmdKind, Highlighter},
    hint::Hinter,
    history::DefaultHistory,
    validate::{ValidationContext, ValidationResult, Validator},
};

use super::{command::Command, history};
use crate::{
    cli::{Exit, Failure},
    statement::Splitter,
};

const HISTORY_ENTRIES_MAX: usize = 2_000;

/// Reads inputs from the terminal.
pub(super) struct LineEditor {
    editor: Editor<Inputs, DefaultHistory>,
}

impl LineEditor {
    pub(super) fn open(behavior: Behavior) -> Result<Self, ReadlineError> {
        let config = Config::builder()
            .behavior(behavior)
            .max_history_size(HISTORY_ENTRIES_MAX)?
            .history_ignore_space(true)
            .auto_add_history(true)
            .build();
        let mut editor = Editor::with_config(config)?;
        editor.set_helper(Some(Inputs));
        if let Some(path) = history::path() {
            // There is none at the first start.
            let _ = editor.load_history(&path);
        }
        Ok(Self { editor })
    }

    /// The next complete input.
    pub(super) fn read(&mut self, prompt: &str) -> Result<String, ReadlineError> {
        let input = self.editor.readline(prompt)?;
        self.save_history();
        Ok(input)
    }

    /// After every input, so that a killed shell loses none.
    fn save_history(&mut self) {
        let Some(path) = history::path() else { return };
        let saved = path.parent().map_or(Ok(()), fs::create_dir_all);
        let saved = saved
            .map_err(ReadlineError::from)
            .and_then(|()| self.editor.append_history(&path));
        if let Err(error) = saved {
            tracing::warn!(path = %path.display(), %error, "cannot save the history");
        }
    }
}

/// Knows where an input ends.
struct Inputs;

impl Validator for Inputs {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(if is_complete(context.input()) {
            ValidationResult::Valid(None)
        } else {
            ValidationResult::Incomplete
        })
    }
}

impl Helper for Inputs {}
impl Highlighter for Inputs {}
impl Hinter for Inputs {
    type Hint = String;
}
impl Completer for Inputs {
    type Candidate = String;
}

/// A command, nothing, or statements up to and including their last `;`.
fn is_complete(input: &str) -> bool {
    let mut splitter = Splitter::default();
    splitter.push(input);
    Command::parse(input).is_some() || splitter.is_between()
}

/// Asks on the terminal and shows stars.
pub(crate) fn ask_password(prompt: &str) -> Result<Password, Failure> {
    let read = || -> Result<String, ReadlineError> {
        // Forced, because without colours the editor does not ask the highlighter.
        let config = Config::builder()
            .behavior(Behavior::PreferTerm)
            .color_mode(ColorMode::Forced)
            .auto_add_history(false)
            .build();
        let mut editor = Editor::<Masked, DefaultHistory>::with_config(config)?;
        editor.set_helper(Some(Masked));
        editor.readline(prompt)
    };
    match read() {
        Ok(password) => Ok(password.into()),
        Err(ReadlineError::Interrupted) => Err(Failure::silent(Exit::Interrupted)),
        Err(error) => Err(Failure::new(
            Exit::Failed,
            format_args!("cannot ask for the password: {error}"),
        )),
    }
}

/// Shows a star for each character.
struct Masked;

impl Highlighter for Masked {
    fn highlight<'l>(&self, line: &'l str, _pos: usize) -> Cow<'l, str> {
        Cow::Owned("*".repeat(line.chars().count()))
    }

    fn highlight_char(&self, _line: &str, _pos: usize, kind: CmdKind) -> bool {
        kind != CmdKind::MoveCursor
    }
}

impl Helper for Masked {}
impl Validator for Masked {}
impl Hinter for Masked {
    type Hint = String;
}
impl Completer for Masked {
    type Candidate = String;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_ends_with_its_last_statement() {
        for whole in [
            "",
            "  ",
            "select 1;",
            "select 1; -- done",
            "select\n1\n;\n",
            "\\q",
            "quit",
            "-- note",
        ] {
            assert!(is_complete(whole), "{whole:?}");
        }
        for open in [
            "select 1",
            "select 1; select",
            "select ';",
            "select 1 -- ;",
            "/* ",
            "select 1\n",
        ] {
            assert!(!is_complete(open), "{open:?}");
        }
    }
}
