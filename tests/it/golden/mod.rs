//! The recorded bytes of a real Drill through our codec, our client and our server.

pub(crate) mod batches;
mod frames;
mod messages;
mod replay;
