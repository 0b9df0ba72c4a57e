//! Reader of the recorded conversations in `tests/golden` (the format is described there).
//!
//! It knows nothing of the product's codec: frames come out as the bytes that were on the wire, and
//! their parts as the recorder saw them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use serde_json::Value;

/// One recorded TCP connection.
#[derive(Debug)]
pub struct Recording {
    /// Folder and file without the ending, such as `user/types.user1`.
    pub name: String,
    /// Which protocol was spoken.
    pub plane: protos::Plane,
    /// Frames of both directions in time order.
    pub items: Vec<Item>,
}

/// What one line of a recording holds.
#[derive(Debug)]
pub struct Item {
    /// The recorder's number, for messages.
    pub index: usize,
    /// Who sent it.
    pub from: Side,
    /// The bytes, as far as they were kept.
    pub content: Content,
}

/// A side of a recorded connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The side that connected.
    Client,
    /// The side that accepted.
    Server,
}

/// Bytes of one line.
#[derive(Debug)]
pub enum Content {
    /// A whole frame.
    Frame(Frame),
    /// A frame of which only the header was kept.
    Trimmed(Head),
    /// Bytes that are no frame.
    Garbage(Bytes),
}

/// The decoded header of a frame, as the recorder wrote it down.
#[derive(Debug, Clone)]
pub struct Head {
    /// `RpcMode` by name, such as `REQUEST`.
    pub mode: String,
    /// Coordination id.
    pub coordination_id: i32,
    /// Number in the plane's own `RpcType`.
    pub rpc_type: i32,
    /// `RpcType` by name; `?` where it has none.
    pub rpc_name: String,
    /// Simple name of the protobuf message; `None` where no message belongs to the type.
    pub message: Option<String>,
    /// Length of the whole frame in bytes, length prefix included.
    pub frame_len: usize,
    /// Length of the raw body in bytes.
    pub raw_len: usize,
    /// The bytes of the `RpcHeader`.
    pub bytes: Bytes,
}

/// A frame with all its bytes.
#[derive(Debug)]
pub struct Frame {
    /// The decoded header.
    pub head: Head,
    /// The whole frame, length prefix included.
    pub bytes: Bytes,
    /// The protobuf body; empty also where the sender left it out.
    pub pbody: Bytes,
}

impl Recording {
    /// Every recording below `tests/golden`, in the order of their names.
    ///
    /// # Errors
    /// A file that cannot be read or does not follow the format.
    pub fn all() -> Result<Vec<Self>> {
        let mut files = Vec::new();
        for folder in ["auth", "dist", "raw", "user"] {
            for entry in fs::read_dir(root().join(folder))? {
                let path = entry?.path();
                if path.extension().is_some_and(|ending| ending == "jsonl") {
                    files.push(path);
                }
            }
        }
        files.sort();
        files.iter().map(|file| Self::read(file)).collect()
    }

    /// One recording by its name, such as `user/types.user1`.
    ///
    /// # Errors
    /// The file cannot be read or does not follow the format.
    pub fn named(name: &str) -> Result<Self> {
        Self::read(&root().join(format!("{name}.jsonl")))
    }

    fn read(path: &Path) -> Result<Self> {
        Self::parse(path).with_context(|| format!("recording {}", path.display()))
    }

    fn parse(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)?;
        let mut lines = text.lines().map(serde_json::from_str::<Value>);
        let first = lines.next().context("empty file")??;
        let folder = path.parent().context("no folder")?;
        let mut items = Vec::new();
        for line in lines {
            items.push(item(&line?, folder)?);
        }
        Ok(Self {
            name: name(path)?,
            plane: plane(str_at(&first, "kind")?)?,
            items,
        })
    }

    /// The whole frames, both directions.
    pub fn frames(&self) -> impl Iterator<Item = (&Item, &Frame)> {
        self.items.iter().filter_map(|item| match &item.content {
            Content::Frame(frame) => Some((item, frame)),
            Content::Trimmed(_) | Content::Garbage(_) => None,
        })
    }

    /// What one side sent, in order, joined; `None` where frames of that side were trimmed.
    #[must_use]
    pub fn stream(&self, from: Side) -> Option<Bytes> {
        let mut joined = Vec::new();
        for item in self.items.iter().filter(|item| item.from == from) {
            match &item.content {
                Content::Frame(frame) => joined.extend_from_slice(&frame.bytes),
                Content::Garbage(bytes) => joined.extend_from_slice(bytes),
                Content::Trimmed(_) => return None,
            }
        }
        Some(joined.into())
    }
}

impl Frame {
    /// The raw body; empty where there is none.
    #[must_use]
    pub fn raw(&self) -> Bytes {
        self.bytes.slice(self.bytes.len() - self.head.raw_len..)
    }
}

/// Where the recordings are.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

fn name(path: &Path) -> Result<String> {
    let relative = path.strip_prefix(root())?.with_extension("");
    Ok(relative
        .to_str()
        .context("a name that is not UTF-8")?
        .to_owned())
}

fn plane(kind: &str) -> Result<protos::Plane> {
    Ok(match kind {
        "user" => protos::Plane::User,
        "control" => protos::Plane::Control,
        "data" => protos::Plane::Data,
        other => bail!("unknown plane {other}"),
    })
}

fn item(line: &Value, folder: &Path) -> Result<Item> {
    let index = usize_at(line, "i")?;
    let content = content(line, folder).with_context(|| format!("frame {index}"))?;
    let from = match str_at(line, "dir")? {
        "C>S" => Side::Client,
        "S>C" => Side::Server,
        other => bail!("unknown direction {other}"),
    };
    Ok(Item {
        index,
        from,
        content,
    })
}

fn content(line: &Value, folder: &Path) -> Result<Content> {
    if let Some(garbage) = line.get("not_a_frame") {
        return Ok(Content::Garbage(hex(garbage
            .as_str()
            .context("not text")?)?));
    }
    let head = head(line)?;
    if line.get("trimmed").is_some() {
        return Ok(Content::Trimmed(head));
    }
    let bytes = frame_bytes(line, folder, &head)?;
    ensure!(
        bytes.len() == head.frame_len,
        "{} bytes, expected {}",
        bytes.len(),
        head.frame_len
    );
    let pbody = pbody(line, &bytes)?;
    Ok(Content::Frame(Frame { head, bytes, pbody }))
}

fn head(line: &Value) -> Result<Head> {
    Ok(Head {
        mode: str_at(line, "mode")?.to_owned(),
        coordination_id: i32::try_from(line["coord"].as_i64().context("coord")?)?,
        rpc_type: i32::try_from(line["type"].as_i64().context("type")?)?,
        rpc_name: str_at(line, "name")?.to_owned(),
        message: line["msg"].as_str().map(str::to_owned),
        frame_len: usize_at(line, "len")?,
        raw_len: line
            .get("raw_len")
            .map_or(Ok(0), |_| usize_at(line, "raw_len"))?,
        bytes: hex(str_at(line, "header")?)?,
    })
}

fn frame_bytes(line: &Value, folder: &Path, head: &Head) -> Result<Bytes> {
    if let Some(whole) = line.get("frame") {
        return hex(whole.as_str().context("frame")?);
    }
    let mut bytes = hex(str_at(line, "frame_head")?)?.to_vec();
    let file = fs::read(folder.join(line["raw_bin"][0].as_str().context("raw_bin")?))?;
    let start = usize::try_from(line["raw_bin"][1].as_u64().context("raw_bin")?)?;
    let raw = file
        .get(start..start + head.raw_len)
        .context("raw_bin outside of its file")?;
    bytes.extend_from_slice(raw);
    Ok(bytes.into())
}

fn pbody(line: &Value, frame: &Bytes) -> Result<Bytes> {
    if let Some(at) = line.get("pbody_at") {
        let edge = |i: usize| {
            Ok::<_, anyhow::Error>(usize::try_from(at[i].as_u64().context("pbody_at")?)?)
        };
        return Ok(frame.slice(edge(0)?..edge(1)?));
    }
    line["pbody"].as_str().map_or(Ok(Bytes::new()), hex)
}

fn hex(text: &str) -> Result<Bytes> {
    ensure!(text.len().is_multiple_of(2), "odd number of hex digits");
    let digits = text.as_bytes().chunks_exact(2);
    digits
        .map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?))
        .collect()
}

fn str_at<'a>(line: &'a Value, key: &'static str) -> Result<&'a str> {
    line[key].as_str().context(key)
}

fn usize_at(line: &Value, key: &'static str) -> Result<usize> {
    Ok(usize::try_from(line[key].as_u64().context(key)?)?)
}
