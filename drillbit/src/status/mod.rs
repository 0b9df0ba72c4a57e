//! The status of a node and of its cluster, for people and for programs: what `drillbit status`, `drillbit top` and the
//! HTTP API show.

mod screen;
mod table;
mod view;

pub(crate) use screen::{Screen, draw};
pub(crate) use table::{Style, tables};
pub(crate) use view::{HeartbeatView, NodeView, QueryView, StatusView, StreamView, TunnelView};
