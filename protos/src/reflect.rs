//! Descriptors at run time, for tools that show protobuf bodies.

use std::sync::LazyLock;

use prost_reflect::DescriptorPool;

static DESCRIPTORS: LazyLock<DescriptorPool> = LazyLock::new(|| {
    let bytes: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
    DescriptorPool::decode(bytes).expect("invariant: the build wrote a valid descriptor set")
});

/// Descriptors of all messages of the three planes, by full protobuf name.
#[must_use]
pub fn descriptors() -> &'static DescriptorPool {
    &DESCRIPTORS
}
