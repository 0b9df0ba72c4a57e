//! Puts one connection together and sets it going: link, mailbox, driver on an io runtime, drainer on the app runtime.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use protos::Plane;
use socket2::SockRef;
use tokio::net::TcpStream;
use tracing::Instrument;

use crate::{
    connection::Connection,
    dispatch::{self, Mailbox, Service},
    driver::Driver,
    frame::{BodyPool, FrameDecoder},
    ledger::{BudgetExceeded, Charge, Kind, Ledger},
    link::{Ends, Link},
    options::ConnectionOptions,
};

static LAST_ID: AtomicU64 = AtomicU64::new(0);

/// The parts of a connection before they run.
pub(crate) struct Parts {
    pub(crate) link: Arc<Link>,
    mailbox: Arc<Mailbox>,
    socket: TcpStream,
    decoder: FrameDecoder,
    file: Charge,
}

impl Parts {
    /// `socket` must belong to the runtime that the driver will run on.
    pub(crate) fn new(
        socket: TcpStream,
        plane: Plane,
        connection: Connection,
        options: &ConnectionOptions,
        bodies: &Arc<BodyPool>,
        ledger: &Ledger,
    ) -> Result<Self, PartsError> {
        let file = ledger.charge(Kind::Files, 1)?;
        set_options(&socket, options)?;
        let ends = Ends {
            id: LAST_ID.fetch_add(1, Ordering::Relaxed) + 1,
            plane,
            local: socket.local_addr()?,
            peer: socket.peer_addr()?,
        };
        let bytes_max = connection.frame_bytes_max();
        let decoder = FrameDecoder::new(bytes_max, Arc::clone(bodies), ledger.clone());
        let link = Link::new(ends, connection, options.write_queue_bytes_max);
        Ok(Self {
            link,
            mailbox: Arc::new(Mailbox::new(options.mailbox_bytes_max)),
            socket,
            decoder,
            file,
        })
    }

    /// The drainer's task, for the app runtime.
    pub(crate) fn drainer(&self, service: Service) -> impl Future<Output = ()> + Send + 'static {
        dispatch::drain(Arc::clone(&self.mailbox), Arc::clone(&self.link), service)
    }

    /// The driver's task, for the io runtime of the socket.
    pub(crate) fn driver(self) -> impl Future<Output = ()> + Send + 'static {
        let ends = self.link.ends;
        let span = tracing::info_span!(
            "connection", id = ends.id, plane = ends.plane.name(), peer = %ends.peer
        );
        let end = End {
            link: Arc::clone(&self.link),
            mailbox: Arc::clone(&self.mailbox),
        };
        let file = self.file;
        // Boxed: futures around futures would hold room for it more than once, for every idle connection.
        let driver = Box::pin(Driver::new(
            self.socket,
            self.link,
            self.mailbox,
            self.decoder,
        ));
        let task = async move {
            // Dropped in the opposite order: the end is told once the socket is closed.
            let _end = end;
            let _file = file;
            driver.await;
        };
        task.instrument(span)
    }
}

// The receive buffer is left to the kernel: setting it turns its tuning off.
fn set_options(socket: &TcpStream, options: &ConnectionOptions) -> io::Result<()> {
    socket.set_nodelay(true)?;
    match options.send_buffer_bytes {
        // Linux doubles what it is told, for its own book-keeping.
        Some(bytes) => SockRef::from(socket).set_send_buffer_size(bytes),
        None => Ok(()),
    }
}

/// Why a socket cannot become a connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PartsError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Budget(#[from] BudgetExceeded),
}

/// Tells everybody about the end, however the driver ended.
struct End {
    link: Arc<Link>,
    mailbox: Arc<Mailbox>,
}

impl Drop for End {
    fn drop(&mut self) {
        let reason = self.link.end();
        tracing::info!(%reason, "connection closed");
        self.mailbox.end(reason);
    }
}
