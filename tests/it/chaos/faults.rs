//! What goes wrong, and the tests that show what comes of it: each fault that this program was
//! built against, and each risk to its security, with the tests by their full names (`cargo test
//! --test it -- NAME`), or with the reason why there is none.

use std::collections::BTreeSet;
use std::process::Command;

/// A fault or a risk.
struct Row {
    number: &'static str,
    what: &'static str,
    tests: &'static [&'static str],
    /// Why there is no test, or what is left for something else to show.
    note: &'static str,
}

const fn shown(number: &'static str, what: &'static str, tests: &'static [&'static str]) -> Row {
    measured(number, what, tests, "")
}

const fn without(number: &'static str, what: &'static str, note: &'static str) -> Row {
    measured(number, what, &[], note)
}

const fn measured(
    number: &'static str,
    what: &'static str,
    tests: &'static [&'static str],
    note: &'static str,
) -> Row {
    Row {
        number,
        what,
        tests,
        note,
    }
}

const FAULTS: &[Row] = &[
    shown(
        "F1",
        "a worker is killed in the middle of a batch",
        &[
            "supervisor::a_killed_worker_is_replaced_and_only_what_was_in_hand_is_charged",
            "chaos::workers::workers_that_are_killed_again_and_again_lose_no_event_and_bury_none",
            "supervisor::a_killed_workers_programs_are_ended",
        ],
    ),
    shown(
        "F2",
        "the supervisor is killed",
        &[
            "supervisor::workers_drain_and_go_when_their_supervisor_is_killed_and_the_next_one_goes_on",
            "supervisor::workers_of_a_killed_supervisor_end_by_their_own_deadline",
            "attack::ending::a_killed_daemon_leaves_no_socket",
        ],
    ),
    shown(
        "F3",
        "a whole tree is killed; its host is lost",
        &[
            "supervisor::the_next_supervisor_recovers_at_once_what_a_killed_tree_left",
            "chaos::fleet::a_daemon_recovers_what_another_one_left_that_was_killed_with_its_workers",
            "chaos::leases::an_expired_lease_with_events_that_cannot_be_charged_frees_all_others",
        ],
    ),
    shown(
        "F4",
        "SIGTERM while handlers run",
        &["signals::a_drain_finishes_what_runs_and_gives_back_what_does_not"],
    ),
    shown(
        "F5",
        "a second SIGTERM",
        &[
            "signals::a_second_signal_ends_everything_at_once",
            "signals::a_second_signal_to_a_worker_ends_it_at_once",
        ],
    ),
    shown(
        "F6",
        "Ctrl-C in a shell",
        &["signals::ctrl_c_in_a_shell_reaches_the_supervisor_alone"],
    ),
    shown(
        "F7",
        "a worker sleeps through its lease and wakes up",
        &[
            "chaos::leases::a_worker_that_slept_through_its_lease_overwrites_nothing",
            "fence::a_lost_lease_never_overwrites_the_other_workers_result",
        ],
    ),
    shown(
        "F8",
        "the server restarts, or is away for a while",
        &[
            "chaos::server::a_server_that_restarts_under_load_costs_no_event_and_no_second_run",
            "chaos::server::handlers_that_finish_while_the_server_is_away_are_settled_when_it_is_back",
            "chaos::server::a_drain_during_an_outage_settles_what_ran_before_it_leaves",
            "chaos::workers::a_worker_killed_while_the_server_is_away_is_swept_when_it_is_back",
        ],
    ),
    shown(
        "F9",
        "the answer of a commit is lost",
        &[
            "chaos::network::a_settle_whose_answer_is_lost_is_recognized_as_written",
            "chaos::network::a_settle_in_doubt_is_recognized_even_after_it_was_halved",
        ],
    ),
    shown(
        "F10",
        "a failover: the old primary is gone, the standby only reads until it is promoted",
        &[
            "addresses::after_a_failover_the_promoted_standby_is_found",
            "chaos::server::a_server_that_only_reads_is_waited_for",
            "connect::a_server_that_only_reads_is_left",
            "supervisor::a_start_waits_for_a_server_that_only_reads",
            "readiness::a_server_that_only_reads_is_not_writable",
        ],
    ),
    shown(
        "F11",
        "all connections are reset",
        &[
            "chaos::network::connections_that_are_cut_again_and_again_cost_no_event_and_no_second_run",
            "chaos::connections::connections_that_are_terminated_again_and_again_cost_no_event_and_no_second_run",
        ],
    ),
    shown(
        "F12",
        "connections go silent, without a reset",
        &["chaos::network::a_call_that_is_never_answered_is_ended_and_costs_no_handler"],
    ),
    shown(
        "F13",
        "a handshake is never answered",
        &[
            "chaos::network::a_handshake_that_is_never_answered_ends_and_work_goes_on_once_it_is",
            "connect::a_pool_whose_connects_have_all_hung_is_usable_once_the_server_answers",
            "tls::a_silent_handshake_ends",
        ],
    ),
    shown(
        "F14",
        "the server has no free connection",
        &[
            "chaos::connections::a_daemon_that_finds_no_free_connection_waits_for_one",
            "chaos::connections::a_daemon_whose_connections_went_to_others_goes_on_when_one_is_free",
        ],
    ),
    shown(
        "F15",
        "the table is locked, statements run out of time",
        &[
            "chaos::locks::a_table_that_is_locked_for_long_charges_and_loses_no_event",
            "chaos::locks::outcomes_that_take_longer_than_a_statement_may_are_written_in_parts",
            "readiness::a_locked_table_is_no_lost_connection_and_the_log_tells_its_end",
        ],
    ),
    shown(
        "F16",
        "a deadlock; an isolation level that lets transactions fail",
        &[
            "chaos::locks::a_deadlock_with_a_persons_transaction_costs_no_event_and_no_second_run",
            "connect::every_session_has_the_settings_that_the_calls_rely_on",
        ],
    ),
    shown(
        "F17",
        "the disk of the server is full",
        &["chaos::disk::a_full_disk_of_the_server_costs_no_event_and_no_second_run"],
    ),
    shown(
        "F18",
        "the schema is missing, older, newer, or vanishes",
        &[
            "supervisor::a_missing_schema_is_told_with_the_remedy",
            "chaos::server::a_schema_that_vanishes_for_a_while_costs_no_event",
            "unfit::a_function_of_another_version_is_outdated",
            "unfit::an_applications_own_table_is_served_as_it_is",
        ],
    ),
    shown(
        "F19",
        "a wrong password, no such database, a bad description",
        &[
            "logging::a_wrong_password_ends_the_start_and_is_never_shown",
            "connect::a_wrong_database_or_user_is_not_worth_waiting_for",
            "cli::no_failing_start_shows_a_password",
        ],
    ),
    shown(
        "F20",
        "a clock is wrong or jumps; a host sleeps",
        &[
            "chaos::clocks::daemons_whose_clocks_jump_apart_go_on_as_before",
            "chaos::clocks::a_database_whose_clock_jumps_takes_no_event_from_a_living_worker",
            "chaos::leases::a_worker_that_slept_through_its_lease_overwrites_nothing",
            "chaos::workers::a_supervisor_that_was_stopped_leaves_its_workers_alone",
        ],
    ),
    shown(
        "F21",
        "a handler panics",
        &["handler::routes::a_handler_that_panics_fails_the_attempt_and_is_asked_again"],
    ),
    shown(
        "F22",
        "a handler ends its worker: abort, signal, memory",
        &[
            "supervisor::an_event_that_kills_its_worker_is_dead_after_its_attempts_and_its_neighbours_are_not",
            "chaos::processes::handlers_that_end_their_own_worker_bury_only_their_own_events",
        ],
    ),
    shown(
        "F23",
        "a handler hangs for ever",
        &[
            "library::a_worker_whose_runners_are_all_stuck_is_replaced",
            "handler::exec::a_program_that_ignores_sigterm_is_killed_with_its_whole_group",
            "handler::http::the_deadline_holds_for_a_receiver_that_is_silent_or_drips",
        ],
    ),
    shown(
        "F24",
        "a handler takes longer than the lease",
        &["chaos::leases::a_handler_longer_than_several_leases_runs_once"],
    ),
    shown(
        "F25",
        "large and deeply nested payloads, those that are no objects",
        &[
            "delivery::the_payload_reaches_the_handler_as_postgresql_prints_it",
            "worker::fetcher::the_queue_is_bounded_by_bytes",
            "handler::exec::a_large_event_arrives_whole",
            "claim::a_claim_brings_no_more_bytes_than_asked_for_but_always_one_event",
        ],
    ),
    shown(
        "F26",
        "rows with impossible attempts, status or due time",
        &[
            "claim::odd_values_in_a_row_stop_nothing",
            "settle::attempts_never_overflow_and_start_at_zero",
            "claim::what_is_not_due_is_not_claimed",
            "worker::sick::an_event_whose_attempts_have_no_room_left_is_dead",
            "schema::a_new_table_refuses_a_status_that_would_never_be_delivered",
        ],
    ),
    shown(
        "F27",
        "an event type without a route",
        &["handler::routes::an_event_that_no_route_matches_is_dead_only_after_its_attempts"],
    ),
    shown(
        "F28",
        "a receiver that is down, slow, endless, redirects, or asks to wait",
        &[
            "handler::http::a_receiver_that_is_not_there_is_worth_another_attempt",
            "handler::http::the_deadline_holds_for_a_receiver_that_is_silent_or_drips",
            "handler::http::a_connection_that_breaks_before_the_status_is_worth_another_attempt",
            "handler::http::a_redirect_is_not_followed",
            "handler::http::an_endless_answer_is_read_to_its_limit_only",
            "handler::http::the_receivers_wish_to_wait_counts_with_429_and_503_only",
            "handler::http::every_other_status_is_worth_another_attempt",
            "handler::tls::a_certificate_that_is_not_accepted_is_told_with_what_would_mend_it",
        ],
    ),
    shown(
        "F29",
        "a program that forks, ignores SIGTERM, floods its output, or reads nothing",
        &[
            "handler::exec::what_a_program_leaves_behind_in_its_group_ends_with_it",
            "handler::exec::a_program_that_ignores_sigterm_is_killed_with_its_whole_group",
            "handler::exec::a_flood_of_output_ends_with_the_time_and_its_end_is_kept",
            "handler::exec::a_program_that_never_reads_its_input_blocks_nobody",
            "handler::exec::a_descendant_that_left_the_group_and_holds_the_pipes_blocks_nobody",
        ],
    ),
    shown(
        "F30",
        "the log cannot be written",
        &[
            "logging::a_log_that_cannot_be_written_harms_nothing",
            "cli::output_that_cannot_be_written_harms_nothing",
        ],
    ),
    shown(
        "F31",
        "no file descriptor is free",
        &[
            "attack::shortage::a_daemon_with_few_descriptors_keeps_some_for_its_work",
            "attack::shortage::a_port_without_descriptors_answers_again_once_there_are_some",
            "attack::shortage::a_server_that_ended_behind_the_guard_is_replaced",
        ],
    ),
    measured(
        "F32",
        "no worker lives for long, or none can be started",
        &[
            "chaos::processes::a_daemon_whose_workers_die_at_their_start_stays_and_says_so",
            "chaos::processes::a_daemon_that_can_start_no_process_goes_on_once_it_can",
            "chaos::processes::handlers_that_end_their_own_worker_bury_only_their_own_events",
        ],
        "that the waits grow is a unit test of `src/supervisor/slot.rs`",
    ),
    shown(
        "F33",
        "the HTTP port is in use",
        &["supervisor::the_port_in_use_is_told_before_anything_starts"],
    ),
    shown(
        "F34",
        "the program is replaced or deleted under a running daemon",
        &[
            "chaos::processes::workers_are_their_supervisors_own_program_though_its_file_was_replaced",
        ],
    ),
    shown(
        "F35",
        "two daemons on one database",
        &[
            "delivery::two_daemons_of_two_workers_run_a_program_for_every_event_exactly_once",
            "delivery::two_daemons_of_two_workers_post_every_event_exactly_once",
        ],
    ),
    shown(
        "F36",
        "rows are deleted or the table is emptied under work",
        &[
            "chaos::rows::an_event_that_a_person_removed_or_ended_meanwhile_is_left_as_it_is_and_counted",
            "chaos::rows::new_events_under_the_ids_of_truncated_ones_are_all_delivered",
        ],
    ),
    without(
        "F37",
        "a notification is lost",
        "the program listens to no notifications: every test of a delivery shows that polling finds all events",
    ),
    shown(
        "F38",
        "no process and no thread can be started",
        &[
            "chaos::processes::a_daemon_that_can_start_no_process_goes_on_once_it_can",
            "architecture::the_layers_hold",
        ],
    ),
    measured(
        "F39",
        "the supervisor's loop is stuck",
        &["chaos::workers::a_supervisor_that_was_stopped_leaves_its_workers_alone"],
        "waits for: the systemd watchdog; that a stopped supervisor does no harm is shown",
    ),
    shown(
        "F40",
        "sixteen sessions claim at once",
        &["race::no_event_is_ever_in_two_live_leases"],
    ),
    shown(
        "F41",
        "a sweep and a late outcome at the same moment",
        &[
            "fence::of_a_sweep_and_a_late_outcome_at_the_same_moment_one_is_written",
            "fence::a_sweep_ends_only_what_is_over",
            "fence::each_protection_of_the_settle_function_matters",
        ],
    ),
    shown(
        "F42",
        "restarts in turn under load",
        &["chaos::fleet::daemons_that_are_restarted_under_load_run_no_event_twice"],
    ),
    measured(
        "F43",
        "a long transaction elsewhere while millions are delivered",
        &[
            "lease::leases_that_are_gone_are_not_read_again_while_vacuum_is_held_back",
            "worker::fetcher::finished_events_that_no_look_gets_past_are_skipped",
            "claim::a_claim_reads_only_what_it_takes",
        ],
        "how fast three million are drained beside it is measured: `dispatchbox bench`, with such a transaction open in psql",
    ),
    shown(
        "F44",
        "a settle is sent again, and an event of it was claimed meanwhile",
        &[
            "fence::a_batch_sent_twice_leaves_alone_what_another_worker_has_claimed_since",
            "fence::a_batch_sent_twice_is_written_once",
        ],
    ),
    shown(
        "F45",
        "the answer of a claim is lost",
        &[
            "chaos::network::a_claim_whose_answer_is_lost_delays_its_events_and_no_more",
            "chaos::server::a_claim_whose_commit_hangs_for_long_charges_no_event",
            "chaos::network::a_drain_gives_back_a_claim_whose_answer_was_lost",
        ],
    ),
    shown(
        "F46",
        "an outage longer than the lease; the database's clock jumps",
        &[
            "chaos::clocks::a_database_whose_clock_jumps_takes_no_event_from_a_living_worker",
            "chaos::leases::an_outage_longer_than_a_lease_costs_no_living_worker_its_events",
            "chaos::leases::an_expired_lease_is_left_alone_where_a_call_has_failed_since_it_was_seen",
        ],
    ),
    shown(
        "F47",
        "a dead worker's back end commits late",
        &[
            "chaos::workers::a_claim_that_a_dead_workers_back_end_commits_late_is_released",
            "chaos::workers::a_claim_that_is_committed_after_a_clean_drain_is_released_by_the_next_daemon",
        ],
    ),
    shown(
        "F48",
        "somebody locks one event for long",
        &[
            "chaos::locks::a_row_that_is_locked_for_long_holds_up_only_itself",
            "chaos::locks::a_locked_row_of_a_dead_worker_holds_up_only_itself",
            "chaos::locks::a_locked_row_of_an_expired_lease_holds_up_only_itself",
        ],
    ),
    shown(
        "F49",
        "the table is emptied and counts its ids anew",
        &[
            "chaos::rows::new_events_under_the_ids_of_truncated_ones_are_all_delivered",
            "lease::ids_counted_anew_meet_no_old_lease",
        ],
    ),
    shown(
        "F50",
        "workers are killed again and again under load",
        &[
            "chaos::workers::workers_that_are_killed_again_and_again_lose_no_event_and_bury_none",
            "metrics::text::counters_never_run_backwards_while_workers_are_killed_under_load",
        ],
    ),
    shown(
        "F51",
        "a route at its limit with many due events in front",
        &[
            "worker::fetcher::hundreds_of_thousands_of_events_of_a_full_route_hold_up_no_other",
            "worker::fetcher::events_behind_those_of_a_full_route_are_delivered",
            "delivery::a_full_route_holds_up_no_other",
            "worker::fetcher::a_long_look_for_one_route_holds_up_no_other_route",
        ],
    ),
    shown(
        "F52",
        "a claim takes longer than the query timeout",
        &[
            "worker::fetcher::a_look_that_takes_too_long_is_made_again_over_less",
            "worker::fetcher::finished_events_that_no_look_gets_past_are_skipped",
            "worker::fetcher::a_look_without_a_bound_gets_one_after_it_took_too_long",
        ],
    ),
    measured(
        "F53",
        "twenty routes with limits, many due events of another",
        &[
            "worker::fetcher::limited_routes_go_on_where_each_of_them_stopped",
            "worker::fetcher::events_of_many_types_of_limited_routes_are_all_delivered",
        ],
        "the ratio of the rates is measured: `scripts/measure_claims`",
    ),
    shown(
        "F54",
        "a row that cannot be read",
        &[
            "unreadable::neighbours_of_a_row_that_cannot_be_read_are_delivered_and_it_ends_dead",
            "unreadable::bytes_that_are_no_text_are_delivered_with_replacements",
            "unreadable::a_damaged_row_is_passed_over",
            "unreadable::a_row_that_is_passed_over_is_held_until_it_is_looked_at_again",
        ],
    ),
    shown(
        "F55",
        "a row that cannot be written",
        &[
            "worker::sick::rows_that_are_refused_in_any_way_keep_only_themselves_waiting",
            "worker::sick::rows_that_are_slow_to_write_hold_up_no_other",
            "worker::sick::an_outcome_that_is_swallowed_is_kept_and_its_handler_runs_once",
            "worker::sick::a_reason_that_the_encoding_of_the_database_lacks_gives_way",
        ],
    ),
    shown(
        "F56",
        "nulls, foreign keys and own columns in retention and discard",
        &[
            "archive::events_that_foreign_keys_refer_to_stay_and_are_named",
            "archive::a_payload_that_is_null_is_archived",
            "archive::a_value_that_the_archive_has_no_column_for_keeps_only_its_event",
            "dead_events_cli::events_that_cannot_be_discarded_are_named_and_the_others_are_discarded",
        ],
    ),
    shown(
        "F57",
        "nobody reads the log",
        &[
            "logging::a_log_that_nothing_reads_stops_neither_deliveries_nor_a_drain",
            "logging::a_log_that_is_read_again_tells_how_many_lines_it_lacks",
        ],
    ),
    shown(
        "F58",
        "PgBouncer, shared with the application",
        &[
            "pooler::nothing_of_ours_stays_on_a_connection_that_others_use",
            "pooler::two_daemons_that_share_the_connections_of_a_pooler_hand_out_each_event_once",
        ],
    ),
    shown(
        "F59",
        "a lost host's lease is swept under a lock",
        &["chaos::locks::a_long_sweep_delays_no_renewal"],
    ),
    shown(
        "F60",
        "the password changes under a running daemon",
        &[
            "rotation::a_changed_password_in_the_dsn_file_is_picked_up_while_running",
            "rotation::a_changed_password_in_service_file_or_passfile_is_picked_up",
        ],
    ),
    shown(
        "F61",
        "receivers that answer early, at length, or close idle connections",
        &[
            "handler::receivers::an_answer_that_comes_before_the_body_was_sent_decides",
            "handler::receivers::a_long_head_is_read",
            "handler::receivers::interim_answers_are_not_the_answer_whatever_stands_in_them",
            "handler::receivers::a_body_behind_an_answer_without_one_does_not_spoil_the_next",
            "handler::receivers::a_connection_closed_in_the_moment_of_its_next_use_costs_no_attempt",
            "handler::transport::a_name_that_moves_is_followed_though_its_connections_are_busy",
        ],
    ),
    without(
        "F62",
        "a receiver is down for longer than all attempts",
        "waits for: outages of a receiver",
    ),
    shown(
        "F63",
        "the server is frozen",
        &[
            "chaos::server::a_server_that_is_frozen_costs_no_worker_and_no_handler",
            "tls::a_daemon_over_tls_outlives_a_frozen_server_and_a_renewed_certificate",
            "connect::a_call_to_a_server_that_is_frozen_ends",
        ],
    ),
];

const RISKS: &[Row] = &[
    shown(
        "S1",
        "anybody may change dead events",
        &[
            "http_api::access::a_stranger_in_the_network_is_refused_and_the_start_says_how_to_let_him_in",
            "http_api::access::with_a_token_only_who_shows_it_gets_in",
            "http_api::access::what_a_proxy_passes_on_is_remote",
            "http_api::access::an_open_api_lets_everybody_in_and_says_so_at_the_start",
            "config::access::a_file_that_holds_no_safe_token_is_refused",
        ],
    ),
    shown(
        "S2",
        "anybody may read payloads",
        &[
            "http_api::access::a_stranger_in_the_network_is_refused_and_the_start_says_how_to_let_him_in",
            "http_api::access::with_a_token_only_who_shows_it_gets_in",
        ],
    ),
    shown(
        "S3",
        "a web page elsewhere posts",
        &[
            "http_api::access::a_web_page_elsewhere_cannot_post",
            "http_api::access::every_answer_is_what_its_type_says_and_nobody_else_may_keep_or_embed_it",
        ],
    ),
    shown(
        "S4",
        "a name of a web page's own leads here",
        &["http_api::access::a_web_page_cannot_get_in_by_a_name_of_its_own"],
    ),
    shown(
        "S5",
        "requests without end or measure",
        &[
            "attack::flood::who_sends_too_much_is_told_so_and_not_cut_off",
            "attack::flood::unfinished_bodies_take_so_much_memory_and_no_more",
            "http_api::bad_input::a_bad_query_names_its_parameter",
            "http_api::bad_input::a_bad_list_of_ids_changes_nothing",
        ],
    ),
    shown(
        "S6",
        "a request hidden behind another",
        &[
            "attack::smuggling::nothing_is_smuggled_behind_a_request",
            "attack::smuggling::nobody_says_for_himself_where_he_comes_from",
        ],
    ),
    shown(
        "S7",
        "answers that tell what only the log should",
        &["http_api::bounds::what_the_database_refuses_is_told_in_the_log_alone"],
    ),
    shown(
        "S8",
        "an event chooses where it is posted to",
        &[
            "handler::http::a_redirect_is_not_followed",
            "handler::http::the_environments_proxy_is_not_used",
            "config::file::a_route_that_cannot_work_is_refused",
        ],
    ),
    shown(
        "S9",
        "a password among the arguments",
        &[
            "logging::the_password_stands_in_no_argument_and_no_variable_of_a_worker",
            "config::a_password_on_the_command_line_is_warned_of",
        ],
    ),
    shown(
        "S10",
        "a password in the log",
        &[
            "cli::no_failing_start_shows_a_password",
            "logging::a_wrong_password_ends_the_start_and_is_never_shown",
            "dsn::psql::no_password_is_ever_shown",
            "handler::http::secrets_of_the_url_reach_the_receiver_and_no_reason",
            "config::file::a_syntax_error_shows_its_line_number_and_not_the_line",
        ],
    ),
    shown(
        "S11",
        "a role that may do more than it needs",
        &[
            "roles::each_role_may_do_no_more_than_its_work",
            "roles::each_privilege_is_needed_and_the_look_before_the_start_names_it",
            "roles::the_daemons_role_is_enough_for_all_that_a_daemon_does",
        ],
    ),
    shown(
        "S12",
        "a search path that leads to somebody else's objects",
        &[
            "dead_letter::triggers_that_change_the_search_path_keep_no_event",
            "worker::sick::a_trigger_that_changes_the_search_path_hinders_no_outcome",
            "connect::every_session_has_the_settings_that_the_calls_rely_on",
        ],
    ),
    shown(
        "S13",
        "a connection to the database that is less safe than asked for",
        &[
            "tls::every_description_ends_as_it_does_with_psql",
            "tls::a_server_that_says_no_to_tls_learns_nothing",
            "tls::plain_text_before_the_handshake_is_not_believed",
        ],
    ),
    shown(
        "S14",
        "an event forges lines of the log",
        &["logging::every_line_has_its_form_and_no_event_can_forge_one"],
    ),
    shown(
        "S15",
        "an event steers the terminal or the page",
        &[
            "dead_events_cli::no_control_character_reaches_a_terminal",
            "explain::a_person_is_told_the_same_and_no_control_character_reaches_the_terminal",
            "browser::text_from_the_database_stays_text",
        ],
    ),
    shown(
        "S16",
        "event types without number among the metrics",
        &[
            "metrics::text::the_text_keeps_every_rule_of_its_format_while_events_flow",
            "metrics::known_work_gives_known_values",
        ],
    ),
    measured(
        "S17",
        "an event steers a program",
        &[
            "handler::exec::no_shell_touches_the_arguments",
            "handler::exec::the_program_gets_a_small_environment_and_starts_in_the_root",
        ],
        "the umask of programs is the unit's",
    ),
    without(
        "S18",
        "a dependency that is not what it was",
        "no test: `scripts/test` builds with the locked versions and asks cargo-deny; Cargo.toml forbids unsafe code",
    ),
    without(
        "S19",
        "a service with rights that it does not need",
        "no test: `scripts/test` has systemd-analyze read the unit",
    ),
];

#[test]
fn every_fault_has_its_tests_or_its_reason_and_none_is_missing() {
    check_table(FAULTS, 'F', 63);
}

#[test]
fn every_risk_has_its_tests_or_its_reason_and_none_is_missing() {
    check_table(RISKS, 'S', 19);
}

fn check_table(rows: &[Row], letter: char, n: usize) {
    let numbers: Vec<&str> = rows.iter().map(|row| row.number).collect();
    let expected: Vec<String> = (1..=n).map(|number| format!("{letter}{number}")).collect();
    assert_eq!(numbers, expected);
    let there = tests_of_this_program();
    for row in rows {
        let Row { number, what, .. } = row;
        assert!(
            !row.tests.is_empty() || !row.note.is_empty(),
            "{number} ({what}) has neither a test nor a reason"
        );
        for &test in row.tests {
            assert!(
                there.contains(test),
                "{number} ({what}): there is no test `{test}`"
            );
        }
    }
}

fn tests_of_this_program() -> BTreeSet<String> {
    let listed = Command::new(std::env::current_exe().unwrap())
        .args(["--list", "--format=terse"])
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    listed
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .map(str::to_owned)
        .collect()
}
