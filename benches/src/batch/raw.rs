//! Bare sockets and blocking threads, one at each end: what the kernel and reading all values take.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use anyhow::Result;
use arrow::array::{Array, RecordBatch};
use socket2::SockRef;

use super::{Load, Pair};
use crate::transfer::bus::SEND_BUFFER_BYTES;
use crate::transfer::{COLUMNS, ROW_BYTES, Seen, sum, values};

const NULLABLE_COLUMNS: usize = COLUMNS / 2;

/// A connection to a thread that reads.
pub(super) struct Raw {
    stream: TcpStream,
}

impl Raw {
    pub(super) fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let stream = TcpStream::connect(listener.local_addr()?)?;
        let (accepted, _) = listener.accept()?;
        for stream in [&stream, &accepted] {
            stream.set_nodelay(true)?;
            SockRef::from(stream).set_send_buffer_size(SEND_BUFFER_BYTES)?;
        }
        // Ends when the other end is dropped.
        thread::spawn(move || serve(accepted));
        Ok(Self { stream })
    }
}

impl Pair for Raw {
    fn run(&mut self, load: &Load) -> Result<Seen> {
        let bodies: Vec<_> = load.batches.first(4).map(|batch| body(&batch)).collect();
        let rows = load.batches.get(0).num_rows() as u64;
        let head = [rows, load.count as u64];
        self.stream
            .write_all(&head.map(u64::to_le_bytes).concat())?;
        for at in 0..load.count {
            self.stream.write_all(&bodies[at % bodies.len()])?;
        }
        let mut answer = [[0; 8]; 2];
        self.stream.read_exact(answer.as_flattened_mut())?;
        let [valid, sum] = answer.map(u64::from_le_bytes);
        let rows = rows * load.count as u64;
        let nulls = rows * NULLABLE_COLUMNS as u64 - valid;
        Ok(Seen { rows, nulls, sum })
    }
}

/// Values and validity of all columns, one after the other.
fn body(batch: &RecordBatch) -> Vec<u8> {
    let mut body = Vec::with_capacity(batch.num_rows() * ROW_BYTES);
    for column in batch.columns() {
        body.extend(values(column));
    }
    for nulls in batch.columns().iter().filter_map(|column| column.nulls()) {
        body.extend(nulls.inner().sliced().as_slice());
    }
    body
}

fn serve(mut stream: TcpStream) -> Result<()> {
    let mut head = [[0; 8]; 2];
    let mut body = Vec::new();
    while stream.read_exact(head.as_flattened_mut()).is_ok() {
        let [rows, count] = head.map(u64::from_le_bytes);
        let rows = usize::try_from(rows)?;
        body.resize(rows * ROW_BYTES + rows.div_ceil(8) * NULLABLE_COLUMNS, 0);
        let (mut valid, mut total) = (0_u64, 0_u64);
        for _ in 0..count {
            stream.read_exact(&mut body)?;
            let (values, validity) = body.split_at(rows * ROW_BYTES);
            total = total.wrapping_add(sum(values));
            valid += validity
                .iter()
                .map(|byte| u64::from(byte.count_ones()))
                .sum::<u64>();
        }
        stream.write_all(&[valid, total].map(u64::to_le_bytes).concat())?;
    }
    Ok(())
}
