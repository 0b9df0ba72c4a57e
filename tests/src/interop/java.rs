//! Java and Maven: finding them, building the harness projects of `tests/interop`.

use std::fmt::Write;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::cache;

/// Packages of the JDK that Drill's memory code reaches into.
const OPENED: [&str; 6] = [
    "java.base/java.lang",
    "java.base/java.util",
    "java.base/java.net",
    "java.base/java.nio",
    "java.base/sun.nio.ch",
    "java.security.jgss/sun.security.krb5",
];

/// A built project: all that it takes to run its main class.
#[derive(Debug)]
pub struct Java {
    class_path: String,
}

/// A Maven project of `tests/interop`.
#[derive(Debug, Clone, Copy)]
pub enum Project {
    /// A whole Drillbit.
    Drillbit,
    /// The JDBC driver behind a line protocol.
    Jdbc,
}

impl Java {
    /// Builds `project`, or finds it built.
    ///
    /// # Errors
    /// `java`, `javac` or `mvn` is missing, or the dependencies cannot be resolved.
    pub fn build(project: Project) -> Result<Self> {
        for tool in ["java", "javac", "mvn"] {
            ensure!(runs(tool), "`{tool}` is not installed");
        }
        let source = project.directory();
        let entry = format!("{}-{:016x}", project.name(), fingerprint(&source)?);
        let built = cache::entry(&entry, |target| compile(&source, target))?;
        let jars = fs::read_to_string(built.join("class-path"))?;
        Ok(Self {
            class_path: format!("{}:{jars}", built.join("classes").display()),
        })
    }

    /// A JVM with `heap_mib` of heap and `direct_mib` outside of it; the main class comes last.
    #[must_use]
    pub fn command(&self, heap_mib: u32, direct_mib: u32) -> Command {
        let mut command = Command::new("java");
        for package in OPENED {
            command.args(["--add-opens", &format!("{package}=ALL-UNNAMED")]);
        }
        command
            .arg(format!("-Xmx{heap_mib}m"))
            .arg(format!("-XX:MaxDirectMemorySize={direct_mib}m"));
        // One collector thread: the machine is shared with what is tested.
        command.args([
            "-XX:+UseSerialGC",
            "-Djava.net.preferIPv4Stack=true",
            "-Duser.timezone=UTC",
        ]);
        command.args(["-cp", &self.class_path]);
        command
    }
}

/// Runs `keytool`, Java's own program for keys and certificates.
///
/// # Errors
/// There is no Java, or what it said.
pub fn keytool(arguments: &[&str]) -> Result<()> {
    run(Command::new("keytool").args(arguments))
}

impl Project {
    fn name(self) -> &'static str {
        match self {
            Self::Drillbit => "drillbit",
            Self::Jdbc => "jdbc",
        }
    }

    fn directory(self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("interop")
            .join(self.name())
    }
}

fn runs(tool: &str) -> bool {
    let quiet = Command::new(tool)
        .arg("-version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    quiet.is_ok_and(|status| status.success())
}

/// Of everything that goes into a build, so that a change is built anew.
fn fingerprint(source: &Path) -> Result<u64> {
    let mut hasher = DefaultHasher::new();
    let inputs = [
        vec![source.join("pom.xml")],
        java_files(source)?,
        files(&resources(source))?,
    ];
    for file in inputs.iter().flatten() {
        file.hash(&mut hasher);
        fs::read(file)?.hash(&mut hasher);
    }
    Ok(hasher.finish())
}

fn compile(source: &Path, target: &Path) -> Result<()> {
    let classes = target.join("classes");
    fs::create_dir_all(&classes)?;
    let list = target.join("class-path");
    run(Command::new("mvn")
        .args(["--batch-mode", "--quiet", "--file"])
        .arg(source.join("pom.xml"))
        .arg("dependency:build-classpath")
        .arg(format!("-Dmdep.outputFile={}", list.display())))?;
    // Some of Drill's jars hold sources, which javac would compile along.
    run(Command::new("javac")
        .args([
            "-nowarn",
            "-proc:none",
            "-implicit:none",
            "-cp",
            fs::read_to_string(&list)?.trim(),
        ])
        .arg("-d")
        .arg(&classes)
        .args(java_files(source)?))?;
    for file in files(&resources(source))? {
        fs::copy(
            &file,
            classes.join(file.file_name().context("a file has a name")?),
        )?;
    }
    Ok(())
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output()?;
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    let _ = write!(said, "{}", String::from_utf8_lossy(&output.stderr));
    let program = command.get_program().display();
    ensure!(output.status.success(), "{program} failed:\n{said}");
    Ok(())
}

fn java_files(source: &Path) -> Result<Vec<PathBuf>> {
    files(&source.join("src/main/java/interop"))
}

fn resources(source: &Path) -> PathBuf {
    source.join("src/main/resources")
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory)? {
        paths.push(entry?.path());
    }
    paths.sort();
    Ok(paths)
}
