//! What a beat costs: a node that beats others in another process, and bare sockets in the same rhythm.
//!
//! All ends are processes of their own, so that nothing but beats is in their CPU time.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use membership::Member;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;

use super::node::Node;
use super::silence::compute;
use super::{BUS, RAW, Sample, Samples};
use crate::child::{Child, say};
use crate::rpc::threads::{ThreadOptions, Threads};

/// Nodes that are beaten, if they cost something.
const NODES: usize = 100;
const INTERVAL: Duration = Duration::from_secs(1);
/// Until all are connected and have been beaten a few times.
const WARM_UP: Duration = Duration::from_secs(3);
const MEASURED: Duration = Duration::from_secs(10);

/// Arguments of one end.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct End {
    part: Part,
    /// Nodes that are beaten, or where bytes are sent to.
    addresses: Vec<String>,
    /// Nodes that answer.
    #[arg(long)]
    nodes: usize,
    /// Bytes of a beat, and of its answer.
    #[arg(long, num_args = 2, default_values_t = [0, 0])]
    bytes: Vec<u32>,
    #[command(flatten)]
    threads: ThreadOptions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Answers beats, and bare bytes.
    Answer,
    /// Beats.
    Bus,
    /// Sends bare bytes.
    Raw,
}

/// Runs one end until stdin ends. One that beats answers every line with its [`Count`].
pub(crate) fn run(end: &End) -> Result<()> {
    let threads = Threads::start(end.threads)?;
    match end.part {
        Part::Answer => answer(&threads, end.nodes),
        Part::Bus => beat(&threads, &end.addresses),
        Part::Raw => send_bare(&threads, end),
    }
}

/// Answers, and computes for as many seconds as a line says.
fn answer(threads: &Threads, count: usize) -> Result<()> {
    let app = threads.app();
    let nodes = app.block_on(async {
        let mut nodes = Vec::new();
        for _ in 0..count {
            nodes.push(Node::start(threads.bus()).await?);
        }
        anyhow::Ok(nodes)
    })?;
    let addresses = nodes.iter().map(|node| node.control.address().to_string());
    say(addresses.collect::<Vec<_>>().join(" "))?;
    let listener = app.block_on(TcpListener::bind("127.0.0.1:0"))?;
    say(listener.local_addr()?)?;
    threads.bus().next_io().spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            Handle::current().spawn(answer_bare(socket));
        }
    });
    for line in io::stdin().lines() {
        compute(threads, Duration::from_secs(line?.parse()?))?;
        say("computing")?;
    }
    Ok(())
}

/// Of beats, bytes sent and bytes received.
#[derive(Clone, Copy, Debug, Default)]
struct Count([u64; 3]);

impl Count {
    fn parse(line: &str) -> Result<Self> {
        let mut count = Self::default();
        for (number, text) in count.0.iter_mut().zip(line.split(' ')) {
            *number = text.parse()?;
        }
        Ok(count)
    }
}

fn until_stdin_ends(count: impl Fn() -> Count) -> Result<()> {
    for line in io::stdin().lines() {
        line?;
        let [beats, sent, received] = count().0;
        say(format_args!("{beats} {sent} {received}"))?;
    }
    Ok(())
}

fn beat(threads: &Threads, addresses: &[String]) -> Result<()> {
    let node = threads.app().block_on(Node::start(threads.bus()))?;
    let addresses = addresses.iter().map(|address| Ok(address.parse()?));
    let members = addresses.map(|address: Result<_>| Ok(Member::at(address?)));
    node.registry.replace(members.collect::<Result<_>>()?)?;
    node.beat(threads.bus());
    say("beating")?;
    until_stdin_ends(|| {
        let nodes = node.beats.nodes();
        let beats = nodes.iter().map(|node| node.counts.answered).sum();
        let peers = node.control.peers();
        let connections = peers.iter().flat_map(|peer| &peer.connections);
        let bytes = connections.fold([0; 2], |[sent, received], (_, connection)| {
            let stats = connection.stats();
            [sent + stats.bytes_sent, received + stats.bytes_received]
        });
        Count([beats, bytes[0], bytes[1]])
    })
}

/// All that is due is sent, and then all answers are read.
fn send_bare(threads: &Threads, end: &End) -> Result<()> {
    let echo: SocketAddr = end.addresses.first().context("no address")?.parse()?;
    let sizes = [end.bytes[0], end.bytes[1]];
    let answered = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&answered);
    let sending = async move {
        let mut sockets = Vec::new();
        for _ in 0..NODES {
            let mut socket = TcpStream::connect(echo).await?;
            socket.set_nodelay(true)?;
            socket
                .write_all(sizes.map(u32::to_le_bytes).as_flattened())
                .await?;
            sockets.push(socket);
        }
        let [beat, mut answer] = sizes.map(|size| vec![7; size as usize]);
        let mut turns = tokio::time::interval(INTERVAL);
        loop {
            turns.tick().await;
            for socket in &mut sockets {
                socket.write_all(&beat).await?;
            }
            for socket in &mut sockets {
                socket.read_exact(&mut answer).await?;
                counted.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    let sending = async move {
        let ended: io::Result<()> = sending.await;
        ended.expect("the other end answers");
    };
    threads.bus().next_io().spawn(sending);
    say("sending")?;
    until_stdin_ends(|| {
        let beats = answered.load(Ordering::Relaxed);
        Count([
            beats,
            beats * u64::from(sizes[0]),
            beats * u64::from(sizes[1]),
        ])
    })
}

async fn answer_bare(mut socket: TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut sizes = [[0; 4]; 2];
    socket.read_exact(sizes.as_flattened_mut()).await?;
    let [mut beat, answer] = sizes.map(|size| vec![7; u32::from_le_bytes(size) as usize]);
    loop {
        socket.read_exact(&mut beat).await?;
        socket.write_all(&answer).await?;
    }
}

/// The process that answers, and what is known of beats.
pub(super) struct Beats {
    answerer: Child,
    nodes: Vec<String>,
    echo: String,
    threads: ThreadOptions,
}

impl Beats {
    pub(super) fn start(threads: ThreadOptions) -> Result<Self> {
        let mut answerer = child("answer", &[], NODES, [0, 0], threads)?;
        let nodes = answerer.line()?.split(' ').map(str::to_owned).collect();
        let echo = answerer.line()?;
        Ok(Self {
            answerer,
            nodes,
            echo,
            threads,
        })
    }

    /// Beats for a while, and then as many bytes without them.
    pub(super) fn round(&mut self) -> Result<Samples> {
        let (bus, bytes) = self.measure(BUS, &self.nodes, [0, 0])?;
        let (raw, _) = self.measure(RAW, std::slice::from_ref(&self.echo), bytes)?;
        Ok(vec![(BUS, bus), (RAW, raw)])
    }

    /// CPU time a beat, and how many bytes it and its answer have.
    fn measure(
        &self,
        part: &str,
        to: &[String],
        bytes: [u32; 2],
    ) -> Result<(Vec<Sample>, [u32; 2])> {
        let mut sender = child(part, to, 0, bytes, self.threads)?;
        sender.line()?;
        sleep(WARM_UP);
        let (there, here) = (self.answerer.watched(), sender.watched());
        let before = Count::parse(&sender.ask("")?)?;
        let (there_before, here_before) = (there.cpu()?, here.cpu()?);
        sleep(MEASURED);
        let (there, here) = (
            there.cpu()?.since(&there_before),
            here.cpu()?.since(&here_before),
        );
        let after = Count::parse(&sender.ask("")?)?;
        let [beats, sent, received] = [0, 1, 2].map(|at| after.0[at] - before.0[at]);
        ensure!(beats > 0, "no beat was answered");
        let count = u32::try_from(beats)?;
        let samples = [("sender_us", here), ("answerer_us", there)]
            .map(|(unit, cpu)| (unit, cpu.as_secs_f64() * 1e6 / f64::from(count)));
        let bytes = [sent, received].map(|bytes| u32::try_from(bytes.div_ceil(beats)));
        Ok((samples.into(), [bytes[0]?, bytes[1]?]))
    }
}

/// Starts an end.
pub(super) fn child(
    part: &str,
    to: &[String],
    nodes: usize,
    bytes: [u32; 2],
    threads: ThreadOptions,
) -> Result<Child> {
    let mut arguments = vec!["beat-end".to_owned(), part.to_owned()];
    arguments.extend_from_slice(to);
    arguments.push(format!("--nodes={nodes}"));
    arguments.push("--bytes".to_owned());
    arguments.extend(bytes.map(|bytes| bytes.to_string()));
    arguments.extend(threads.arguments());
    Child::start(arguments.into_iter().map(OsString::from))
}
