//! Our client against our node.

use super::client_suite::on;
use crate::nodes::node;

on! { Some(node().user()),
    every_scalar_type_arrives_with_its_nulls
    every_type_of_json_arrives_with_its_nulls
    intervals_arrive_with_their_nulls
    the_sample_employees_are_there
    no_rows_come_with_their_schema
    a_million_rows_arrive_once_each
    an_error_has_drills_kind_id_and_node
    wrong_sql_is_an_error_of_its_kind_and_the_connection_goes_on
    unreadable_files_are_errors_and_the_connection_goes_on
    a_cancel_ends_a_result
    a_result_dropped_early_leaves_the_client_usable
    a_query_dropped_before_its_first_batch_leaves_the_client_usable
    eight_clients_query_at_once
    eight_queries_of_one_client_run_at_once
    two_results_are_read_in_turns
    a_default_schema_comes_with_the_connection
    a_session_keeps_what_was_set
    an_idle_client_stays_connected
    a_client_closed_with_a_running_query_leaves_nothing
}
