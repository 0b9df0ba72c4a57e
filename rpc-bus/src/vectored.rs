//! Reading into two places at once: the rest of a body, and what follows it.

use std::{
    io::{self, IoSliceMut, Read},
    pin::Pin,
    task::{Context, Poll, ready},
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, Interest, ReadBuf},
    net::TcpStream,
};

use crate::tls::TlsStream;

/// A socket that may fill two places in one call.
pub(crate) trait ReadVectored: AsyncRead + Unpin {
    /// Reads once: fills `first`, and `second` only behind it. Returns how many bytes came; 0 at the peer's end.
    ///
    /// Whoever cannot fill both in one call fills the first.
    fn poll_read_vectored(
        &mut self,
        cx: &mut Context<'_>,
        first: &mut [u8],
        _second: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut target = ReadBuf::new(first);
        ready!(Pin::new(self).poll_read(cx, &mut target))?;
        Poll::Ready(Ok(target.filled().len()))
    }
}

impl ReadVectored for TlsStream {}

impl ReadVectored for TcpStream {
    fn poll_read_vectored(
        &mut self,
        cx: &mut Context<'_>,
        first: &mut [u8],
        second: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let wanted = first.len() + second.len();
        let mut slices = [IoSliceMut::new(first), IoSliceMut::new(second)];
        loop {
            ready!(self.poll_read_ready(cx))?;
            let mut bytes = 0;
            let read = self.try_io(Interest::READABLE, || {
                bytes = (&*SockRef::from(&*self)).read_vectored(&mut slices)?;
                // What fills less than was asked for was all there is: the runtime then waits for more, and need not be
                // told so by a read in vain.
                if (1..wanted).contains(&bytes) {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Ok(())
            });
            match read {
                Err(error) if bytes == 0 && error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if bytes == 0 => return Poll::Ready(Err(error)),
                _ => return Poll::Ready(Ok(bytes)),
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::future::poll_fn;

    use tokio::{io::AsyncWriteExt, net::TcpListener};

    use super::*;

    /// Both ends of a connection.
    async fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (accepted, connected) = tokio::join!(listener.accept(), TcpStream::connect(addr));
        (accepted.unwrap().0, connected.unwrap())
    }

    async fn read(socket: &mut TcpStream, first: usize, second: usize) -> io::Result<Vec<u8>> {
        let (mut first, mut second) = (vec![0; first], vec![0; second]);
        let bytes = poll_fn(|cx| socket.poll_read_vectored(cx, &mut first, &mut second)).await?;
        first.append(&mut second);
        first.truncate(bytes);
        Ok(first)
    }

    #[tokio::test]
    async fn both_places_are_filled_in_order_until_the_end() {
        let (mut from, mut to) = connected().await;
        to.write_all(b"0123456789").await.unwrap();
        // All of it may not be there at once.
        let mut all = Vec::new();
        while all.len() < 7 {
            let missing = 7 - all.len();
            all.append(
                &mut read(&mut from, missing.min(4), missing.saturating_sub(4))
                    .await
                    .unwrap(),
            );
        }
        assert_eq!(all, b"0123456");
        // Less than is asked for, and then nothing until more comes.
        assert_eq!(read(&mut from, 2, 8).await.unwrap(), b"789");
        let mut waits = Box::pin(read(&mut from, 1, 1));
        let is_pending = poll_fn(|cx| Poll::Ready(waits.as_mut().poll(cx).is_pending()));
        assert!(is_pending.await);
        to.write_all(b"a").await.unwrap();
        assert_eq!(waits.await.unwrap(), b"a");
        drop(to);
        assert!(read(&mut from, 1, 1).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_socket_that_fails_says_so() {
        let (mut from, to) = connected().await;
        SockRef::from(&to)
            .set_linger(Some(std::time::Duration::ZERO))
            .unwrap();
        drop(to);
        let error = read(&mut from, 1, 1).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}
