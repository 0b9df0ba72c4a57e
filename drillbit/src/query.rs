//! One statement: from the client into the output.

use std::{
    io,
    time::{Duration, Instant},
};

use arrow::array::RecordBatch;
use client::{Client, ClientError, QueryEvent};
use tokio::task;

use crate::{
    output::{Destination, Format, Place, RenderError, ResultRenderer},
    progress::Progress,
};

/// Where results go and in which format; one for all statements of a run.
pub(crate) struct Output {
    destination: Destination,
    format: Format,
    place: Place,
    rendered: Vec<u8>,
}

impl Output {
    pub(crate) fn new(destination: Destination, format: Format) -> Self {
        Self {
            destination,
            format,
            place: Place::First,
            rendered: Vec::new(),
        }
    }

    /// Changes the format for the results to come.
    pub(crate) fn set_format(&mut self, format: Format) {
        self.format = format;
    }

    /// Bytes written so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.destination.bytes()
    }

    /// Puts the output in its place.
    pub(crate) fn commit(self) -> io::Result<()> {
        self.destination.commit()
    }

    fn begin(&mut self) -> ResultRenderer {
        let renderer = ResultRenderer::new(self.format, self.place, &mut self.rendered);
        self.place = Place::Following;
        renderer
    }

    fn batch(
        &mut self,
        renderer: &mut ResultRenderer,
        batch: &RecordBatch,
    ) -> Result<(), QueryError> {
        renderer.batch(batch, &mut self.rendered)?;
        self.write()
    }

    fn finish(&mut self, renderer: ResultRenderer) -> Result<(), QueryError> {
        renderer.finish(&mut self.rendered)?;
        self.write()
    }

    fn write(&mut self) -> Result<(), QueryError> {
        self.destination
            .take(&mut self.rendered)
            .map_err(QueryError::Write)
    }
}

/// What a statement brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) rows: u64,
    pub(crate) elapsed: Duration,
}

/// Why a statement did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QueryError {
    /// The server said no, or is gone.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The format cannot express the result.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// The output takes no more.
    #[error("cannot write the output: {0}")]
    Write(#[source] io::Error),
}

impl QueryError {
    /// Whether the connection is of no more use.
    pub(crate) fn is_connection(&self) -> bool {
        use ClientError::{Connect, Lost, Protocol};
        matches!(self, Self::Client(Connect(_) | Lost(_) | Protocol(_)))
    }
}

/// Runs `sql` and streams its result out.
///
/// Dropping the future cancels the query. What a failed statement has written stays written.
pub(crate) async fn run(
    client: &Client,
    sql: &str,
    output: &mut Output,
    progress: &Progress,
) -> Result<Done, QueryError> {
    let begun = Instant::now();
    // Left over from a statement that was given up.
    output.rendered.clear();
    let mut stream = client.query(sql).await?;
    let mut renderer = output.begin();
    let mut rows = 0;
    while let Some(event) = stream.next_event().await? {
        match event {
            QueryEvent::Schema(schema) => renderer.schema(schema),
            QueryEvent::Batch(batch) => {
                rows += batch.num_rows() as u64;
                output.batch(&mut renderer, &batch)?;
                progress.show(rows, output.bytes());
                // A fast server always has the next batch ready, and whoever waits beside us (for
                // Ctrl-C) would not get its turn.
                task::yield_now().await;
            }
        }
    }
    output.finish(renderer)?;
    Ok(Done {
        rows,
        elapsed: begun.elapsed(),
    })
}
