//! Puts one connection together and sets it going: link, mailbox, driver on an io runtime, drainer on the app runtime.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use protos::Plane;
use tracing::Instrument;

use crate::{
    connection::Connection,
    dispatch::{self, Mailbox, Service},
    driver::Driver,
    error::CloseReason,
    frame::{BodyPool, FrameDecoder},
    ledger::Ledger,
    link::{self, Ends, Link},
    metrics::Metrics,
    options::ConnectionOptions,
    socket::{Socket, Stream},
};

static LAST_ID: AtomicU64 = AtomicU64::new(0);

/// The parts of a connection before they run.
pub(crate) struct Parts {
    pub(crate) link: Arc<Link>,
    mailbox: Arc<Mailbox>,
    socket: Socket,
    decoder: FrameDecoder,
}

impl Parts {
    pub(crate) fn new(
        socket: Socket,
        plane: Plane,
        connection: Connection,
        options: &ConnectionOptions,
        bodies: &Arc<BodyPool>,
        ledger: &Ledger,
    ) -> io::Result<Self> {
        let ends = Ends {
            id: LAST_ID.fetch_add(1, Ordering::Relaxed) + 1,
            plane,
            local: socket.stream.local_addr()?,
            peer: socket.stream.peer_addr()?,
            tls: socket.tls(),
        };
        let bytes_max = connection.frame_bytes_max();
        let decoder = FrameDecoder::new(bytes_max, Arc::clone(bodies), ledger.clone());
        let link = Link::new(ends, connection, options.write_queue_bytes_max);
        Ok(Self {
            link,
            mailbox: Arc::new(Mailbox::new(options.mailbox_bytes_max)),
            socket,
            decoder,
        })
    }

    /// The drainer's task, for the app runtime.
    pub(crate) fn drainer(&self, service: Service) -> impl Future<Output = ()> + Send + 'static {
        if let Service::Handler(handler) = &service {
            self.mailbox.serve(handler);
        }
        dispatch::drain(Arc::clone(&self.mailbox), Arc::clone(&self.link), service)
    }

    /// The driver's task, for the io runtime of the socket.
    pub(crate) fn driver(
        self,
        metrics: &Arc<Metrics>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let ends = self.link.ends;
        let span = tracing::info_span!(
            "connection", id = ends.id, plane = ends.plane.name(), peer = %ends.peer
        );
        let end = End::new(&self.link, &self.mailbox, metrics);
        let (link, mailbox, decoder) = (self.link, self.mailbox, self.decoder);
        let Socket { stream, file } = self.socket;
        // Boxed: futures around futures would hold room for it more than once, for every idle connection.
        let driver: Pin<Box<dyn Future<Output = ()> + Send>> = match stream {
            Stream::Plain(tcp) => Box::pin(Driver::new(tcp, link, mailbox, decoder)),
            Stream::Tls(tls) => Box::pin(Driver::new(tls, link, mailbox, decoder)),
            #[cfg(any(test, feature = "simulation"))]
            Stream::Simulated(stream) => Box::pin(Driver::new(stream, link, mailbox, decoder)),
        };
        let task = async move {
            // Dropped in the opposite order: the end is told once the socket is closed.
            let _end = end;
            let _file = file;
            driver.await;
        };
        task.instrument(span)
    }
}

/// Tells everybody about the end, however the driver ended.
struct End {
    link: Arc<Link>,
    mailbox: Arc<Mailbox>,
    metrics: Arc<Metrics>,
    opened: Instant,
}

impl End {
    fn new(link: &Arc<Link>, mailbox: &Arc<Mailbox>, metrics: &Arc<Metrics>) -> Self {
        metrics.on_opened(link);
        Self {
            link: Arc::clone(link),
            mailbox: Arc::clone(mailbox),
            metrics: Arc::clone(metrics),
            opened: link::now(),
        }
    }

    /// The one line that an operator finds about a connection.
    fn log(&self, reason: &CloseReason) {
        let stats = self.link.lock().stats();
        let duration = link::now().saturating_duration_since(self.opened);
        tracing::info!(
            kind = reason.kind(),
            %reason,
            ?duration,
            frames_received = stats.frames_received,
            frames_sent = stats.frames_sent,
            bytes_received = stats.bytes_received,
            bytes_sent = stats.bytes_sent,
            requests = stats.requests_received,
            calls = stats.calls_started,
            "connection closed"
        );
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.link.close(CloseReason::Aborted);
        let reason = self.link.reason();
        self.log(&reason);
        self.metrics.on_closed(&self.link, &reason);
        self.link.end(reason.clone());
        self.mailbox.end(reason);
    }
}
