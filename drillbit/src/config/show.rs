//! The configuration in effect as a file: every key with its text, its default and its origin.

use std::fmt::{self, Write as _};

use toml::Value;

use super::{
    Config, KeyName, Settings,
    keys::{Key, SECTIONS, Section},
};

const HEAD: &str = "\
# Configuration of drillbit: what is in effect. It can be used as a file (--config FILE).
# Flags beat the environment (DRILLBIT_NODE_BIND is bind of [node]), which beats the file, which
# beats the defaults. Paths are relative to the working directory. Secrets have files of their own.
";

/// Writes all sections.
pub(super) fn show(settings: &Settings) -> String {
    let mut out = HEAD.to_owned();
    let (values, defaults) = (table(&settings.config), table(&Config::default()));
    for section in SECTIONS {
        let part = Part {
            section,
            values: values.get(section.name),
            defaults: defaults.get(section.name),
        };
        // A string takes everything.
        let _ = part.write(&mut out, settings);
    }
    out
}

fn table(config: &Config) -> Value {
    let value = Value::try_from(config);
    value.unwrap_or_else(|_| toml::Table::new().into())
}

struct Part<'a> {
    section: &'static Section,
    values: Option<&'a Value>,
    defaults: Option<&'a Value>,
}

impl Part<'_> {
    fn write(&self, out: &mut String, settings: &Settings) -> fmt::Result {
        writeln!(out)?;
        comment(out, self.section.text)?;
        writeln!(out, "[{}]", self.section.name)?;
        for key in self.section.keys {
            self.write_key(out, settings, key)?;
        }
        Ok(())
    }

    fn write_key(&self, out: &mut String, settings: &Settings, key: &Key) -> fmt::Result {
        writeln!(out)?;
        comment(out, key.text)?;
        let of = |values: Option<&Value>| values.and_then(|all| all.get(key.name)).cloned();
        let default = of(self.defaults);
        match &default {
            Some(default) => write!(out, "# Default: {default}.")?,
            None => write!(out, "# Default: unset.")?,
        }
        let name = KeyName {
            section: self.section.name,
            key: key.name,
        };
        match settings.origin(name) {
            Some(origin) => writeln!(out, " Set by {origin}.")?,
            None => writeln!(out)?,
        }
        match of(self.values) {
            Some(value) => writeln!(out, "{} = {value}", key.name),
            None => writeln!(out, "# {} =", key.name),
        }
    }
}

fn comment(out: &mut String, text: &[&str]) -> fmt::Result {
    text.iter().try_for_each(|line| writeln!(out, "#{line}"))
}
