//! The layers of a configuration: a file, the environment, flags. Each is checked by itself, so that
//! what is wrong is told with its place.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _},
    ops::Range,
    path::Path,
};

use serde::Deserialize as _;
use toml::{
    Spanned, Table, Value,
    de::{DeTable, DeValue},
};

use super::{
    Config, KeyName, Origin, Problem, Problems,
    keys::{SECTIONS, Section},
};

/// Keys by section.
pub(super) type Values = Table;

/// What all variables of the environment begin with.
const PREFIX: &str = "DRILLBIT_";

/// A file of this size is no configuration.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Values of one layer, and where they are from.
#[derive(Debug, Default)]
pub(super) struct Layer {
    pub(super) values: Values,
    pub(super) origins: BTreeMap<KeyName, Origin>,
}

impl Layer {
    fn set(&mut self, name: KeyName, value: Value, origin: Origin) {
        let section = self.values.entry(name.section);
        if let Value::Table(keys) = section.or_insert_with(|| Table::new().into()) {
            keys.insert(name.key.to_owned(), value);
        }
        self.origins.insert(name, origin);
    }

    /// Reads a file.
    pub(super) fn file(path: &Path) -> Result<Self, Problems> {
        let text = read(path).map_err(|error| {
            let message = format!("cannot read the configuration: {error}");
            one(path.display().to_string(), message)
        })?;
        Self::text(path, &text)
    }

    /// Reads the text of the file at `path`.
    pub(super) fn text(path: &Path, text: &str) -> Result<Self, Problems> {
        let file = Text { path, text };
        let parsed = DeTable::parse(text).map_err(|error| file.syntax(&error))?;
        let mut layer = Self::default();
        let unknown = layer.find_keys(&file, parsed.get_ref());
        if !unknown.is_empty() {
            return Err(Problems(unknown));
        }
        toml::from_str::<Config>(text).map_err(|error| file.syntax(&error))?;
        layer.values = toml::from_str(text).map_err(|error| file.syntax(&error))?;
        Ok(layer)
    }

    /// Notes where the keys are; gives those that do not exist.
    fn find_keys(&mut self, file: &Text<'_>, parsed: &DeTable<'_>) -> Vec<Problem> {
        let mut unknown = Vec::new();
        for (section, value) in parsed {
            let Some(known) = section_named(section.get_ref()) else {
                let message = unknown_section(section.get_ref(), value);
                unknown.push(file.problem(section.span(), message));
                continue;
            };
            // Whatever else it is will be found to have the wrong type.
            for (key, _) in value.get_ref().as_table().into_iter().flatten() {
                if let Some(name) = key_named(known, key.get_ref()) {
                    self.origins.insert(name, file.origin(key.span()));
                } else {
                    let message = unknown_key(known, key.get_ref());
                    unknown.push(file.problem(key.span(), message));
                }
            }
        }
        unknown
    }

    /// Takes the variables that name a key: `DRILLBIT_NODE_USER_PORT` is `user_port` of `[node]`.
    pub(super) fn environment(
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Problems> {
        let (mut layer, mut problems) = (Self::default(), Vec::new());
        for (variable, text) in variables {
            match named_by(&variable)
                .map(|name| name.and_then(|name| Ok((name, value(name, &text)?))))
            {
                None => {}
                Some(Ok((name, value))) => layer.set(name, value, Origin::Variable(variable)),
                Some(Err(message)) => problems.push(Problem {
                    place: variable,
                    message,
                }),
            }
        }
        if problems.is_empty() {
            Ok(layer)
        } else {
            Err(Problems(problems))
        }
    }
}

/// What flags say; a flag that is not given says nothing.
#[derive(Debug, Default)]
pub(crate) struct Flags(Layer);

impl Flags {
    /// `flag` was given with `value`, or was not given.
    ///
    /// # Panics
    ///
    /// There is no such key.
    #[must_use]
    pub(crate) fn with(
        mut self,
        flag: &'static str,
        (section, key): (&str, &str),
        value: Option<impl Into<Value>>,
    ) -> Self {
        let name = section_named(section).and_then(|section| key_named(section, key));
        let name = name.expect("invariant: flags name keys that exist");
        if let Some(value) = value {
            self.0.set(name, value.into(), Origin::Flag(flag));
        }
        self
    }

    pub(super) fn into_layer(self) -> Layer {
        self.0
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?
        .take(FILE_BYTES_MAX)
        .read_to_string(&mut text)?;
    if read as u64 == FILE_BYTES_MAX {
        return Err(io::Error::other(format!(
            "larger than {FILE_BYTES_MAX} bytes"
        )));
    }
    Ok(text)
}

/// A file's text, to find lines in.
struct Text<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Text<'_> {
    fn line(&self, offset: usize) -> usize {
        let before = self.text.bytes().take(offset);
        1 + before.filter(|&byte| byte == b'\n').count()
    }

    fn origin(&self, span: Range<usize>) -> Origin {
        Origin::File {
            path: self.path.to_owned(),
            line: self.line(span.start),
        }
    }

    fn problem(&self, span: Range<usize>, message: String) -> Problem {
        Problem {
            place: self.origin(span).to_string(),
            message,
        }
    }

    /// The error with its line, and what stands there.
    fn syntax(&self, error: &toml::de::Error) -> Problems {
        let span = error.span().unwrap_or(0..0);
        let line = self.text.lines().nth(self.line(span.start) - 1);
        let shown = line.unwrap_or_default().trim();
        let message = format!("{}: {shown}", error.message().trim_end());
        Problems(vec![self.problem(span, message)])
    }
}

fn one(place: String, message: String) -> Problems {
    Problems(vec![Problem { place, message }])
}

fn section_named(name: &str) -> Option<&'static Section> {
    SECTIONS.iter().find(|section| section.name == name)
}

fn key_named(section: &'static Section, name: &str) -> Option<KeyName> {
    let key = section.keys.iter().find(|key| key.name == name)?;
    Some(KeyName {
        section: section.name,
        key: key.name,
    })
}

/// The key that a variable names; `None` if it is not about the configuration.
fn named_by(variable: &str) -> Option<Result<KeyName, String>> {
    let rest = variable.strip_prefix(PREFIX)?.to_ascii_lowercase();
    let (section, key) = SECTIONS.iter().find_map(|section| {
        let key = rest.strip_prefix(section.name)?.strip_prefix('_')?;
        Some((section, key))
    })?;
    Some(key_named(section, key).ok_or_else(|| unknown_key(section, key)))
}

/// `text` as the value of a key: TOML, or a string without quotes.
fn value(name: KeyName, text: &str) -> Result<Value, String> {
    let toml = text.parse::<Value>().ok();
    let plain = Value::String(text.to_owned());
    let first = toml.unwrap_or_else(|| plain.clone());
    match fits(name, first.clone()) {
        Ok(()) => Ok(first),
        Err(_) if fits(name, plain.clone()).is_ok() => Ok(plain),
        Err(message) => Err(message),
    }
}

/// Whether a key may have this value.
fn fits(name: KeyName, value: Value) -> Result<(), String> {
    let mut layer = Layer::default();
    layer.set(name, value, Origin::Flag(""));
    let config = Config::deserialize(layer.values);
    config.map(drop).map_err(|error| error.message().to_owned())
}

fn unknown_section(name: &str, value: &Spanned<DeValue<'_>>) -> String {
    let sections = SECTIONS.iter().map(|section| section.name);
    if value.get_ref().is_table() {
        return match nearest(name, sections.clone()) {
            Some(near) => format!("unknown section [{name}]; did you mean [{near}]?"),
            None => format!("unknown section [{name}]; there are {}", list(sections)),
        };
    }
    match section_of(name) {
        Some(section) => format!("the key {name} belongs into the section [{section}]"),
        None => format!(
            "unknown key {name} outside of a section; there are {}",
            list(sections)
        ),
    }
}

fn unknown_key(section: &Section, name: &str) -> String {
    let (of, keys) = (section.name, section.keys.iter().map(|key| key.name));
    if let Some(near) = nearest(name, keys.clone()) {
        return format!("unknown key {of}.{name}; did you mean {near}?");
    }
    match section_of(name) {
        Some(other) => format!("unknown key {of}.{name}; there is one in [{other}]"),
        None => format!("unknown key {of}.{name}; there are {}", list(keys)),
    }
}

fn section_of(key: &str) -> Option<&'static str> {
    let mut sections = SECTIONS.iter();
    let section = sections.find(|section| section.keys.iter().any(|known| known.name == key))?;
    Some(section.name)
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

/// What was probably meant: the same but for a slip of the fingers, or for its end.
fn nearest<'a>(name: &str, mut known: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    /// Below it, names have little in common.
    const SIMILARITY_MIN: f64 = 0.7;
    let similar = known
        .clone()
        .map(|candidate| {
            let similarity = strsim::normalized_damerau_levenshtein(name, candidate);
            (similarity, candidate)
        })
        .filter(|(similarity, _)| *similarity >= SIMILARITY_MIN)
        .max_by(|one, other| one.0.total_cmp(&other.0));
    match similar {
        Some((_, candidate)) => Some(candidate),
        None => known.find(|candidate| candidate.starts_with(name)),
    }
}
