//! Our client against our node.

use super::client_suite::on;
use crate::nodes::node;

on! { Some(node().user()) }
