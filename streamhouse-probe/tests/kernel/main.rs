//! The real kernel program at real uprobes of this very executable.
//!
//! What the machine must have for it is tried first: where it is missing the trials are ignored and say why, unless
//! `STREAMHOUSE_REQUIRE_BPF=1` makes that a failure.

mod child;
mod exact;
mod lifecycle;
mod log_lines;
mod observer;
mod raw;
mod red_zone;
mod refusals;
mod targets;

use std::env;

use libtest_mimic::{Arguments, Completion, Trial};
use streamhouse_probe::attach;

type Body = fn();

const TRIALS: &[(&str, Body)] = &[
    ("hooks_are_counted_exactly_from_several_threads", exact::hooks_from_several_threads),
    ("send_bins_equal_a_floating_point_reference", exact::send_bins),
    ("durations_and_sizes_fall_into_their_buckets", exact::every_bucket),
    ("operations_without_a_start_are_counted_and_not_timed", exact::untimed),
    ("failures_are_counted_by_status_only", exact::failures),
    ("operations_have_sums_of_their_own", exact::object_operations),
    ("the_cost_of_a_hit_is_measured_apart_from_what_is_served", exact::calibrated),
    ("absurd_arguments_are_refused", refusals::clamped),
    ("unreadable_scopes_are_refused", refusals::bad_pointer),
    ("hits_of_a_known_scope_are_counted_without_its_memory", refusals::known_scope),
    ("bins_that_do_not_add_up_are_lost_and_counted", refusals::bins_lost),
    ("a_process_gets_its_share_and_no_more", refusals::over_share),
    ("a_process_with_a_million_scopes_takes_its_share", refusals::a_million_scopes),
    ("a_process_that_claims_anothers_nonce_counts_for_itself", refusals::anothers_nonce),
    ("labels_may_hold_any_byte", refusals::hostile_labels),
    ("the_first_refusal_of_its_kind_is_logged", refusals::logged),
    ("values_are_held_back_until_their_labels_can_be_read", refusals::held_back),
    ("one_file_under_two_targets_counts_once", targets::two_links),
    ("targets_found_to_be_one_go_on_as_one", targets::merged),
    ("targets_that_are_gone_are_forgotten", targets::forgotten),
    ("semaphores_are_up_while_attached_only", lifecycle::semaphores),
    ("a_killed_probe_leaves_no_trace", lifecycle::killed_probe),
    ("totals_outlive_their_process", lifecycle::exited_process),
    ("a_forked_child_lives_and_is_observed", lifecycle::forked_child),
    ("operations_of_a_process_without_labels_are_not_forgotten", lifecycle::nameless_process),
    ("what_was_opened_is_what_is_attached", lifecycle::replaced_file),
    ("a_million_hits_of_each_site_leave_locals_alone", red_zone::locals_survive),
];

fn main() {
    if child::run() {
        return;
    }
    log_lines::install();
    let mut arguments = Arguments::from_args();
    // Each trial attaches to the same executable and would count the hits of the others.
    arguments.test_threads = Some(1);
    let trials = TRIALS
        .iter()
        .map(|&(name, body)| {
            Trial::ignorable_test(name, move || match missing() {
                None => {
                    body();
                    Ok(Completion::Completed)
                }
                Some(missing) if env::var_os("STREAMHOUSE_REQUIRE_BPF").is_some_and(|value| value == "1") => {
                    Err(missing.into())
                }
                Some(missing) => Ok(Completion::ignored_with(missing)),
            })
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit();
}

/// What this machine lacks to run the trials.
fn missing() -> Option<String> {
    let object = match attach::object(None) {
        Ok(object) => object,
        Err(error) => return Some(error.to_string()),
    };
    attach::probe_features(&object).into_iter().find_map(|feature| feature.state.err())
}
