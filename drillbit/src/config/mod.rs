//! The program's configuration: one typed TOML file, the environment, and flags.
//!
//! Flags beat the environment, which beats the file, which beats the defaults. Every key is
//! declared once, in `keys.rs`: its name, type, default and text. [`Settings::load`] puts the
//! layers together and checks how the values relate; `show.rs` writes them out again.

mod check;
mod keys;
mod layer;
mod options;
mod show;

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use serde::Deserialize;

pub(crate) use keys::{ClientSection, Config};
pub(crate) use layer::Flags;
use layer::{Layer, Values};

/// Name of a key: its section and its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KeyName {
    pub(crate) section: &'static str,
    pub(crate) key: &'static str,
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.section, self.key)
    }
}

/// Where a value comes from, if it is not the default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    File { path: PathBuf, line: usize },
    Variable(String),
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// Something that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// File and line, variable or flag; empty if it is nobody's in particular.
    pub(crate) place: String,
    pub(crate) message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place.is_empty() {
            return f.write_str(&self.message);
        }
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// All that is wrong, as far as it can be told at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problems(pub(crate) Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

/// The configuration in effect, and where each value comes from.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) config: Config,
    origins: BTreeMap<KeyName, Origin>,
}

impl Settings {
    /// Reads `file`, if there is one, and `environment`, and lets `flags` have the last word.
    ///
    /// # Errors
    ///
    /// A layer cannot be read, a key is unknown, a value has the wrong type, or two values
    /// contradict each other.
    pub(crate) fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: Flags,
    ) -> Result<Self, Problems> {
        let mut layers = Vec::new();
        if let Some(path) = file {
            layers.push(Layer::file(path)?);
        }
        layers.push(Layer::environment(environment)?);
        layers.push(flags.into_layer());
        let settings = Self::of_layers(layers)?;
        let problems = check::check(&settings);
        if problems.is_empty() {
            Ok(settings)
        } else {
            Err(Problems(problems))
        }
    }

    fn of_layers(layers: Vec<Layer>) -> Result<Self, Problems> {
        let (mut values, mut origins) = (Values::new(), BTreeMap::new());
        for layer in layers {
            for (section, keys) in layer.values {
                let merged = values.entry(section).or_insert_with(|| empty().into());
                if let (Some(merged), toml::Value::Table(keys)) = (merged.as_table_mut(), keys) {
                    merged.extend(keys);
                }
            }
            origins.extend(layer.origins);
        }
        let config = Config::deserialize(values).map_err(|error| {
            // Every layer has been checked by itself.
            let message = error.message().to_owned();
            let place = String::new();
            Problems(vec![Problem { place, message }])
        })?;
        Ok(Self { config, origins })
    }

    /// Where the value of a key comes from; `None` is the default.
    pub(crate) fn origin(&self, name: KeyName) -> Option<&Origin> {
        self.origins.get(&name)
    }

    /// The whole configuration as a commented file.
    pub(crate) fn show(&self) -> String {
        show::show(self)
    }
}

fn empty() -> toml::Table {
    toml::Table::new()
}

#[cfg(test)]
mod tests;
