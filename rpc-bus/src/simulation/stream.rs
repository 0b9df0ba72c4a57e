//! What stands in for sockets.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Instant,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};

use super::{Connection, End, Event, Host, SimulatedNetwork, State, pipe::Arrived};
use crate::{link, vectored::ReadVectored};

/// One end of a connection.
pub(crate) struct SimulatedStream {
    network: SimulatedNetwork,
    id: u64,
    side: usize,
    /// Of both sides.
    addrs: [SocketAddr; 2],
    /// Until something arrives.
    sleep: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl SimulatedStream {
    pub(super) fn new(
        network: SimulatedNetwork,
        id: u64,
        side: usize,
        addrs: [SocketAddr; 2],
    ) -> Self {
        Self {
            network,
            id,
            side,
            addrs,
            sleep: None,
        }
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.addrs[self.side]
    }

    pub(crate) fn peer_addr(&self) -> SocketAddr {
        self.addrs[1 - self.side]
    }

    /// Whether it was there by then.
    fn poll_sleep(&mut self, until: Instant, cx: &mut Context<'_>) -> bool {
        match &mut self.sleep {
            Some((at, _)) if *at == until => {}
            Some((at, sleep)) => {
                *at = until;
                sleep.as_mut().reset(until.into());
            }
            none => *none = Some((until, Box::pin(tokio::time::sleep_until(until.into())))),
        }
        let sleep = self.sleep.as_mut();
        sleep.is_some_and(|(_, sleep)| sleep.as_mut().poll(cx).is_ready())
    }

    fn read(&self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> io::Result<Arrived> {
        let (now, mut state) = (link::now(), self.network.lock());
        let [ours, theirs] = [self.local_addr().ip(), self.peer_addr().ip()];
        let bytes_max = state.piece_bytes(theirs, ours);
        let stalled = state.path(theirs, ours).stalled;
        let connection = state.live(self.id, self.side)?;
        let pipe = &mut connection.pipes[1 - self.side];
        let arrived = pipe.read(out, bytes_max, (now, stalled));
        if matches!(arrived, Arrived::Later(_)) {
            pipe.reader = Some(cx.waker().clone());
        }
        if let Arrived::Bytes(bytes) = arrived {
            state.note(Event::Read, [self.id, self.side as u64, bytes as u64]);
        }
        Ok(arrived)
    }

    fn write(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let (now, mut state) = (link::now(), self.network.lock());
        let [ours, theirs] = [self.local_addr().ip(), self.peer_addr().ip()];
        let bytes_max = state.piece_bytes(ours, theirs);
        let buffer_bytes = state.path(ours, theirs).path.buffer_bytes.max(1);
        let lives_again = state.lives_again(self.id, 1 - self.side);
        let connection = state.live(self.id, self.side)?;
        if connection.pipes[1 - self.side].is_reset(now) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let pipe = &mut connection.pipes[self.side];
        if pipe.is_ended() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = buffer_bytes.saturating_sub(pipe.buffered_bytes);
        if room == 0 {
            pipe.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let bytes = gather(slices, room.min(bytes_max));
        let (count, is_unknown) = (bytes.len(), pipe.is_forsaken || lives_again);
        let at = state.arrival(ours, theirs, count);
        state.note(Event::Written, [self.id, self.side as u64, count as u64]);
        let connection = state.live(self.id, self.side)?;
        let cut = connection.pipes[self.side].write(bytes, at);
        if let Some(end) = cut {
            state.end(self.id, self.side, end);
            state.end(self.id, 1 - self.side, end);
        } else if is_unknown {
            state.end(self.id, 1 - self.side, End::Reset);
        }
        Poll::Ready(Ok(count))
    }
}

fn gather(slices: &[IoSlice<'_>], bytes_max: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for slice in slices {
        let left = bytes_max - bytes.len();
        bytes.extend_from_slice(&slice[..slice.len().min(left)]);
    }
    bytes
}

impl State {
    /// Whether the host of that side has died and come back: it does not know the connection, and says so when it hears
    /// of it.
    fn lives_again(&self, id: u64, side: usize) -> bool {
        let connection = self.connections.get(&id);
        connection.is_some_and(|connection| {
            let host = self.hosts.get(&connection.addrs[side].ip());
            connection.dead[side] && host.is_some_and(|(_, lives)| *lives)
        })
    }

    /// The connection, unless the host of that side has died.
    fn live(&mut self, id: u64, side: usize) -> io::Result<&mut Connection> {
        let lost = || io::Error::from(io::ErrorKind::ConnectionAborted);
        let connection = self.connections.get_mut(&id).ok_or_else(lost)?;
        if connection.dead[side] {
            return Err(lost());
        }
        Ok(connection)
    }

    /// A side drops its stream.
    fn leave(&mut self, id: u64, side: usize) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        connection.gone[side] = true;
        let is_over = connection.gone == [true; 2];
        if !connection.dead[side] {
            let has_unread = connection.pipes[1 - side].forsake();
            self.end(id, side, if has_unread { End::Reset } else { End::Fin });
        }
        if is_over {
            self.connections.remove(&id);
        }
    }
}

impl AsyncRead for SimulatedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let until = match self.read(cx, buf)? {
                Arrived::Bytes(_) | Arrived::Ended(End::Fin) => return Poll::Ready(Ok(())),
                Arrived::Ended(End::Reset) => {
                    return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
                }
                Arrived::Later(None) => return Poll::Pending,
                Arrived::Later(Some(until)) => until,
            };
            if !self.poll_sleep(until, cx) {
                return Poll::Pending;
            }
        }
    }
}

impl ReadVectored for SimulatedStream {
    fn poll_read_vectored(
        &mut self,
        cx: &mut Context<'_>,
        first: &mut [u8],
        second: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut both = vec![0; first.len() + second.len()];
        let mut target = ReadBuf::new(&mut both);
        ready!(Pin::new(self).poll_read(cx, &mut target))?;
        let read = target.filled();
        let (to_first, to_second) = read.split_at(read.len().min(first.len()));
        first[..to_first.len()].copy_from_slice(to_first);
        second[..to_second.len()].copy_from_slice(to_second);
        Poll::Ready(Ok(read.len()))
    }
}

impl AsyncWrite for SimulatedStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.network.lock();
        state.live(self.id, self.side)?;
        state.end(self.id, self.side, End::Fin);
        Poll::Ready(Ok(()))
    }
}

impl Drop for SimulatedStream {
    fn drop(&mut self) {
        self.network.lock().leave(self.id, self.side);
    }
}

/// Where a host accepts connections.
pub(crate) struct SimulatedListener {
    host: Host,
    addr: SocketAddr,
}

impl SimulatedListener {
    pub(super) fn new(host: Host, addr: SocketAddr) -> Self {
        Self { host, addr }
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) async fn accept(&self) -> (SimulatedStream, SocketAddr) {
        poll_fn(|cx| {
            let mut state = self.host.network.lock();
            // Nothing comes any more to a host that has died.
            let Some(listening) = state.listeners.get_mut(&self.addr) else {
                return Poll::Pending;
            };
            let Some(stream) = listening.incoming.pop_front() else {
                listening.acceptor = Some(cx.waker().clone());
                return Poll::Pending;
            };
            let peer = stream.peer_addr();
            Poll::Ready((stream, peer))
        })
        .await
    }
}

impl Drop for SimulatedListener {
    fn drop(&mut self) {
        let mut state = self.host.network.lock();
        // A later life of the host may listen there again.
        let listening = if state.lives(&self.host) {
            state.listeners.remove(&self.addr)
        } else {
            None
        };
        drop(state);
        drop(listening);
    }
}
