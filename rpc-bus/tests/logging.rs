//! What an operator reads about connections.
#![allow(clippy::unwrap_used, reason = "tests say what they expect")]

mod common;

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use common::{Scene, plan, run, until};

/// Everything that was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn lines_with(&self, words: &str) -> Vec<String> {
        let log = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let lines = log.lines().filter(|line| line.contains(words));
        lines.map(str::to_owned).collect()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn each_connection_that_ends_leaves_one_line_that_says_why() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _here = tracing::subscriber::set_default(subscriber);
    let scene = Scene::new().await;
    let client = scene.connect().await;
    run(&client, plan::ECHO).await.unwrap();
    let id = client.id();
    drop(client);
    scene.close_reason().await;
    scene.finish().await;
    let lines = until(|| Some(log.lines_with("connection closed")).filter(|l| l.len() > 1)).await;
    assert_eq!(lines.len(), 2, "{lines:#?}");
    let of_client = lines
        .iter()
        .find(|line| line.contains(&format!("{{id={id} ")))
        .unwrap();
    for words in [
        "INFO connection{",
        "plane=\"user\"",
        "peer=127.0.0.1:",
        "kind=\"closed_here\"",
        "reason=closed by this side",
        "duration=",
        "frames_received=2",
        "frames_sent=2",
        "bytes_received=",
        "requests=0",
        "calls=1",
    ] {
        assert!(of_client.contains(words), "no {words} in {of_client}");
    }
    let of_server = lines.iter().find(|line| *line != of_client).unwrap();
    assert!(of_server.contains("kind=\"peer_closed\"") && of_server.contains("requests=1"));
}
