//! Arrow record batches as bodies, between our own nodes: every Arrow type is kept.
//!
//! The bodies of a stream, one after the other, are a stream in Arrow's IPC format: the schema in the first of them,
//! dictionaries before the batch that needs them, every buffer at a multiple of 64 bytes. Encoding references large
//! buffers instead of copying them. Decoding wraps every buffer on its own: columns that share one would each count all
//! of it as their memory.
//!
//! Arrow's own reader trusts what it reads; this one is for bytes from a peer. Lengths are compared with the bytes that
//! came before anything is cut or allocated, and every array is validated.

mod arrays;
mod compact;
mod error;
mod header;
mod message;
mod plain;
mod schema;
mod size;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, RecordBatch, RecordBatchOptions},
    compute::concat,
    datatypes::{FieldRef, SchemaRef},
    error::ArrowError,
    ipc::{
        DictionaryBatch, Message, MessageHeader,
        writer::{DictionaryHandling, IpcWriteOptions, StreamEncoder},
    },
};
use bytes::Bytes;

pub use error::ArrowBodyError;
pub use size::arrow_body_bytes;

use crate::{body::Body, checked::Region, error::EncodeError};
use arrays::Columns;
use header::{Lists, Template};
use plain::PlainWriter;
use schema::StreamSchema;
use size::Size;

/// Limits of decoding.
#[derive(Clone, Debug)]
pub struct ArrowDecodeOptions {
    /// Most rows of a batch, and most items of a column inside of another one whose items take no bytes, as nulls and runs.
    /// Default 16 Mi.
    pub rows_max: usize,
    /// Deepest nesting of columns, a top-level column counting as 1. Default 32.
    pub depth_max: usize,
    /// Most bytes that the dictionaries of a stream may hold together. Default 64 MiB.
    pub dictionary_bytes_max: usize,
}

impl Default for ArrowDecodeOptions {
    fn default() -> Self {
        Self {
            rows_max: 1 << 24,
            depth_max: 32,
            dictionary_bytes_max: 64 << 20,
        }
    }
}

/// Encodes the batches of one stream.
pub struct ArrowEncoder {
    stream: StreamEncoder,
    schema: SchemaRef,
    later: Later,
}

/// Who writes the batches behind the first one, which brings the schema.
enum Later {
    Unknown,
    Arrow,
    Plain(PlainWriter),
}

impl ArrowEncoder {
    /// An encoder for batches of `schema`.
    ///
    /// # Errors
    ///
    /// A dictionary of dictionaries, which the format cannot express.
    pub fn try_new(schema: &SchemaRef) -> Result<Self, EncodeError> {
        let options =
            IpcWriteOptions::default().with_dictionary_handling(DictionaryHandling::Delta);
        Ok(Self {
            stream: StreamEncoder::try_new_with_options(schema, options)?,
            schema: Arc::clone(schema),
            later: Later::Unknown,
        })
    }

    /// Encodes one batch, under the names of the encoder's schema: the pieces of a body in wire order. Large pieces
    /// reference the batch's buffers and keep those alive. The first body brings the schema.
    ///
    /// # Errors
    ///
    /// Columns of other types than the encoder's, or nulls where its schema has none.
    pub fn encode(&mut self, batch: &RecordBatch) -> Result<Vec<Bytes>, EncodeError> {
        let (expected, actual) = (self.schema.fields().len(), batch.num_columns());
        if expected != actual {
            return Err(EncodeError::ColumnCount { expected, actual });
        }
        if let Later::Plain(writer) = &mut self.later
            && are_columns_of(batch, &self.schema)
            && let Some(body) = writer.write(batch)
        {
            return Ok(body);
        }
        let body = self.encode_any(batch)?;
        if let Later::Unknown = self.later {
            self.later = PlainWriter::try_new(&self.schema).map_or(Later::Arrow, Later::Plain);
        }
        Ok(body)
    }

    fn encode_any(&mut self, batch: &RecordBatch) -> Result<Vec<Bytes>, EncodeError> {
        let counted = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let (schema, columns) = (Arc::clone(&self.schema), written_right(batch)?);
        let batch = RecordBatch::try_new_with_options(schema, columns, &counted)?;
        let buffers = self.stream.encode(&batch)?;
        let mut body = Body::for_buffers(&buffers);
        for buffer in buffers {
            body.push(&buffer);
        }
        Ok(body.finish())
    }

    /// The body of a stream that ends without a batch: the schema alone.
    ///
    /// # Errors
    ///
    /// None that is known.
    pub fn schema_only(schema: &SchemaRef) -> Result<Vec<Bytes>, EncodeError> {
        let mut body = Body::default();
        for buffer in StreamEncoder::try_new(schema)?.finish()? {
            body.push(&buffer);
        }
        Ok(body.finish())
    }
}

/// Whether the columns are what `schema` says, whatever their names.
fn are_columns_of(batch: &RecordBatch, schema: &SchemaRef) -> bool {
    if Arc::ptr_eq(batch.schema_ref(), schema) {
        return true;
    }
    let columns = batch.columns().iter().zip(schema.fields());
    let fits = |(column, field): (&ArrayRef, &FieldRef)| {
        column.data_type() == field.data_type() && (field.is_nullable() || column.null_count() == 0)
    };
    columns.into_iter().all(fits)
}

/// The columns, in a form that Arrow writes as they are.
fn written_right(batch: &RecordBatch) -> Result<Vec<ArrayRef>, ArrowError> {
    let size = Size::of(batch);
    let columns = batch.columns().iter();
    columns
        .map(|column| compact::compact(column, size))
        .collect()
}

impl std::fmt::Debug for ArrowEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ArrowEncoder")
            .field("schema", &self.schema)
            .finish_non_exhaustive()
    }
}

/// Decodes the bodies of one stream, in their order.
#[derive(Debug, Default)]
pub struct ArrowDecoder {
    options: ArrowDecodeOptions,
    stream: Option<StreamSchema>,
    /// By their id in the stream.
    dictionaries: HashMap<i64, ArrayRef>,
    /// Memory of all dictionaries.
    dictionary_bytes: usize,
    /// Those of the body that is being decoded. A delta copies all of its dictionary, so one body brings one of each.
    brought: HashSet<i64>,
    /// The header of the last batch whose header was read as a flatbuffer.
    template: Option<Template>,
}

impl ArrowDecoder {
    /// A decoder that has seen no body.
    #[must_use]
    pub fn new(options: ArrowDecodeOptions) -> Self {
        Self {
            options,
            ..Self::default()
        }
    }

    /// The stream's schema, once a body has brought it.
    #[must_use]
    pub fn schema(&self) -> Option<&SchemaRef> {
        self.stream.as_ref().map(|stream| &stream.schema)
    }

    /// Decodes one body: its batch, or nothing if it brought no more than the schema.
    ///
    /// Buffers are slices of `dbody` where they are aligned, and copies where they are not; a slice keeps the whole body
    /// alive.
    ///
    /// # Errors
    ///
    /// Bytes that are not what an [`ArrowEncoder`] makes; see [`ArrowBodyError`]. The stream is of no use afterwards.
    pub fn decode(&mut self, dbody: &Bytes) -> Result<Option<RecordBatch>, ArrowBodyError> {
        let mut rest = dbody.clone();
        let mut batch = None;
        self.brought.clear();
        while let Some(header) = message::cut(&mut rest)? {
            if batch.is_some() {
                return Err(ArrowBodyError::BehindTheBatch);
            }
            batch = self.message(&header, &mut rest)?;
        }
        if batch.is_none() && !self.brought.is_empty() {
            return Err(ArrowBodyError::Malformed("dictionaries without a batch"));
        }
        Ok(batch)
    }

    /// One message, whose data is taken off `rest`. A header like the last one needs no reading but for its numbers.
    fn message(
        &mut self,
        header: &Bytes,
        rest: &mut Bytes,
    ) -> Result<Option<RecordBatch>, ArrowBodyError> {
        let template = self.template.as_mut();
        if let Some((length, lists)) = template.and_then(|template| template.read(header)) {
            let body = Arc::new(message::take(rest, length)?);
            return self.batch(lists, Vec::new(), Region::new(&body)).map(Some);
        }
        let message = message::parse(header)?;
        let body = Arc::new(message::take(rest, message.bodyLength())?);
        let batch = self.read(message, Region::new(&body))?;
        if batch.is_some() {
            self.template = Template::of(message, header);
        }
        Ok(batch)
    }

    fn read(
        &mut self,
        header: Message<'_>,
        body: Region<'_>,
    ) -> Result<Option<RecordBatch>, ArrowBodyError> {
        match header.header_type() {
            MessageHeader::Schema => {
                let schema = header.header_as_schema();
                let schema = schema.ok_or(ArrowBodyError::Malformed("no schema in its message"))?;
                self.begin(StreamSchema::read(schema, self.options.depth_max)?)?;
                Ok(None)
            }
            MessageHeader::DictionaryBatch => {
                let dictionary = header.header_as_dictionary_batch();
                let dictionary = dictionary.ok_or(ArrowBodyError::Malformed("no dictionary"))?;
                self.dictionary(dictionary, body)?;
                Ok(None)
            }
            MessageHeader::RecordBatch => {
                let batch = header.header_as_record_batch();
                let batch = batch.ok_or(ArrowBodyError::Malformed("no batch in its message"))?;
                let variadic = arrays::variadic_counts(batch)?;
                self.batch(Lists::of(batch), variadic, body).map(Some)
            }
            _ => Err(ArrowBodyError::Malformed("a message of another kind")),
        }
    }

    fn begin(&mut self, stream: StreamSchema) -> Result<(), ArrowBodyError> {
        if self.stream.is_some() {
            return Err(ArrowBodyError::SecondSchema);
        }
        self.stream = Some(stream);
        Ok(())
    }

    fn batch(
        &self,
        lists: Lists<'_>,
        variadic: Vec<i64>,
        body: Region<'_>,
    ) -> Result<RecordBatch, ArrowBodyError> {
        let stream = self.stream.as_ref().ok_or(ArrowBodyError::NoSchema)?;
        let rows = self.rows(lists.rows)?;
        let of_stream = (&stream.ids[..], &self.dictionaries);
        let rows_max = self.options.rows_max;
        let mut columns = Columns::new(lists, variadic, body, of_stream, rows_max);
        let fields = stream.schema.fields().iter();
        let arrays = fields
            .map(|field| columns.of_rows(field, rows))
            .collect::<Result<Vec<_>, _>>()?;
        columns.expect_end()?;
        let counted = RecordBatchOptions::new().with_row_count(Some(rows));
        let schema = Arc::clone(&stream.schema);
        RecordBatch::try_new_with_options(schema, arrays, &counted).map_err(ArrowBodyError::Batch)
    }

    fn dictionary(
        &mut self,
        header: DictionaryBatch<'_>,
        body: Region<'_>,
    ) -> Result<(), ArrowBodyError> {
        let id = header.id();
        let unknown = ArrowBodyError::UnknownDictionary { id };
        let stream = self.stream.as_ref().ok_or(ArrowBodyError::NoSchema)?;
        let Some(dictionary) = stream.dictionaries.get(&id) else {
            return Err(unknown);
        };
        if !self.brought.insert(id) {
            return Err(ArrowBodyError::SecondDictionary { id });
        }
        let batch = header
            .data()
            .ok_or(ArrowBodyError::Malformed("an empty dictionary"))?;
        let rows = self.rows(batch.length())?;
        let variadic = arrays::variadic_counts(batch)?;
        let of_stream = (&dictionary.ids[..], &self.dictionaries);
        let rows_max = self.options.rows_max;
        let mut columns = Columns::new(Lists::of(batch), variadic, body, of_stream, rows_max);
        let values = columns.of_rows(&dictionary.values, rows)?;
        columns.expect_end()?;
        let values = match self.dictionaries.get(&id).filter(|_| header.isDelta()) {
            Some(before) => concat(&[before, &values]).map_err(ArrowBodyError::Batch)?,
            None => values,
        };
        self.keep(id, values)
    }

    fn keep(&mut self, id: i64, values: ArrayRef) -> Result<(), ArrowBodyError> {
        self.dictionary_bytes += values.get_buffer_memory_size();
        if let Some(before) = self.dictionaries.insert(id, values) {
            self.dictionary_bytes -= before.get_buffer_memory_size();
        }
        let (bytes, bytes_max) = (self.dictionary_bytes, self.options.dictionary_bytes_max);
        if bytes > bytes_max {
            return Err(ArrowBodyError::DictionaryBytes { bytes, bytes_max });
        }
        Ok(())
    }

    fn rows(&self, rows: i64) -> Result<usize, ArrowBodyError> {
        let rows_max = self.options.rows_max;
        usize::try_from(rows)
            .ok()
            .filter(|&rows| rows <= rows_max)
            .ok_or(ArrowBodyError::RowCount { rows, rows_max })
    }
}
