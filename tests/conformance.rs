//! The conformance suite of the model of Kafka: each scenario is written once, against the ports, and run
//! on the model and on a real broker, whose address is in `THALWEG_TEST_BOOTSTRAP`. Where they differ,
//! the broker is right.
#![allow(clippy::disallowed_methods, reason = "the real broker lives in real time")]

#[path = "conformance/brokers.rs"]
mod brokers;
#[path = "conformance/common.rs"]
mod common;
#[path = "conformance/fencing.rs"]
mod fencing;
#[path = "conformance/group.rs"]
mod group;
#[path = "conformance/late.rs"]
mod late;
#[path = "conformance/log.rs"]
mod log;
#[path = "conformance/offsets.rs"]
mod offsets;
#[path = "conformance/on_kafka.rs"]
mod on_kafka;
#[path = "conformance/on_model.rs"]
mod on_model;
#[path = "conformance/rights.rs"]
mod rights;
mod support;
#[path = "conformance/world.rs"]
mod world;

/// Scenarios for which the broker or the network fails: each is a test on the model; on real brokers the
/// scenarios of a kind are one test, since they share a broker that no other test has.
macro_rules! labs {
    ($($module:ident on $start:ident: $($scenario:ident),+;)+) => {
        mod model_labs {
            $($(#[test]
            fn $scenario() {
                crate::$module::$scenario(&crate::on_model::OnModel::default());
            })+)+
        }
        mod kafka_labs {
            $(#[test]
            fn $module() {
                let world = crate::on_kafka::OnKafka::$start();
                $(
                    eprintln!("{}", stringify!($scenario));
                    crate::$module::$scenario(&world);
                )+
            })+
        }
    };
}

labs! {
    late on behind_a_proxy:
        a_commit_that_comes_after_a_new_owner_is_refused,
        a_commit_that_comes_before_a_new_owner_counts_whole,
        records_that_come_after_a_new_owner_are_refused,
        offsets_that_come_after_a_new_owner_are_refused_and_hold_nothing,
        a_copy_of_a_commit_ends_the_next_transaction_of_the_same_producer,
        a_copy_of_a_commit_is_refused_once_the_producer_is_replaced;
    brokers on alone:
        after_a_crash_the_log_start_may_have_moved_back,
        a_member_that_holds_on_to_what_it_lost_is_fenced_by_its_own_past,
        a_restart_is_not_noticed_in_the_group_and_in_transactions,
        a_commit_waits_for_brokers_that_are_away,
        a_commit_that_cannot_end_in_its_time_is_in_doubt,
        a_restore_waits_for_brokers_that_are_away;
    rights on with_rights:
        without_the_right_to_write_a_commit_stops,
        without_the_right_to_the_group_a_member_stops,
        without_the_right_to_the_transactional_id_a_producer_stops,
        without_the_right_to_read_a_restore_stops,
        without_the_right_to_read_a_member_is_told,
        without_the_right_to_delete_records_stay;
}

/// Two tests of each scenario.
macro_rules! scenarios {
    ($($module:ident: $($scenario:ident),+;)+) => {
        mod model {
            $($(#[test]
            fn $scenario() {
                crate::$module::$scenario(&crate::on_model::OnModel::default());
            })+)+
        }
        mod kafka {
            $($(#[test]
            fn $scenario() {
                crate::$module::$scenario(&crate::on_kafka::OnKafka::default());
            })+)+
        }
    };
}

scenarios! {
    log:
        a_commit_is_seen_whole_with_its_offsets,
        an_open_transaction_holds_the_last_stable_offset,
        aborted_records_are_seen_by_read_uncommitted_alone,
        the_oldest_of_two_open_transactions_holds_what_the_other_committed,
        every_partition_of_a_transaction_gets_a_marker,
        deleted_records_are_out_of_range,
        a_cut_through_an_open_transaction_moves_the_last_stable_offset,
        what_cannot_be_cut,
        a_record_that_cannot_be_applied_ends_the_read,
        keys_headers_tombstones_and_times_come_through,
        a_position_outside_the_log_is_told_by_the_fetch,
        the_consumers_position_goes_past_markers,
        starting_again_reads_from_the_new_position,
        records_outside_of_transactions_wait_behind_an_open_one,
        a_transaction_outlives_one_of_its_topics,
        a_cut_at_the_end_leaves_an_empty_log_that_goes_on,
        outputs_and_changes_of_one_partition_keep_their_order,
        a_partition_that_was_paused_goes_on_behind_what_was_fetched;
    fencing:
        a_second_producer_of_the_id_fences_the_first,
        a_new_producer_aborts_what_the_old_one_left_open,
        each_call_of_a_fenced_producer_is_fatal,
        a_transaction_that_lasts_too_long_is_aborted_and_fenced,
        another_generation_another_member_and_a_member_that_left_are_refused,
        a_transaction_without_offsets_is_refused,
        what_an_operator_must_mend_stops_the_commit,
        calls_out_of_order_are_refused,
        after_a_write_that_failed_there_is_nothing_but_to_abort,
        producers_of_different_ids_do_not_fence_each_other;
    offsets:
        unstable_offsets_are_waited_out,
        a_partition_is_marked_as_finished_by_the_commit_of_its_offset,
        how_far_a_partition_is_comes_with_its_offset,
        the_offsets_of_nobody_are_taken_whoever_the_members_are,
        a_member_may_commit_what_is_not_its_own,
        the_offsets_of_an_aborted_transaction_are_dropped,
        a_deleted_topic_takes_its_offsets_with_it,
        a_group_is_deleted_when_nobody_is_in_it,
        a_member_commits_while_the_group_waits_for_it,
        the_coordinator_refuses_a_generation_that_is_over,
        the_coordinator_refuses_a_member_that_left_and_one_that_was_replaced,
        an_empty_group_takes_the_offsets_of_nobody,
        the_offsets_that_came_later_count_whichever_transaction_ends_first,
        who_commits_without_a_transaction_is_checked,
        a_plain_commit_stays_that_came_after_those_of_an_open_transaction,
        one_transaction_commits_for_two_groups,
        offsets_sent_twice_in_a_transaction_count_once;
    group:
        two_consumers_share_and_a_static_member_leaves_at_once,
        range_gives_each_topic_to_its_own_subscribers,
        a_static_member_that_restarts_gets_its_partitions_back_without_a_rebalance,
        a_member_that_falls_silent_keeps_its_partitions_for_a_session,
        a_restore_may_last_longer_than_a_session,
        partitions_that_were_lost_are_told_and_committed_no_more,
        a_second_process_with_the_instance_id_fences_the_first,
        a_commit_under_a_member_id_that_was_replaced_is_in_doubt,
        leaving_in_the_middle_of_the_first_join_leaves_nothing_behind,
        a_member_that_does_not_give_back_in_time_is_out,
        settings_that_the_brokers_do_not_take_stop_the_client,
        what_is_asked_about_a_missing_topic_stops_and_reading_it_waits,
        a_topic_that_was_created_again_has_another_id,
        a_dynamic_member_leaves_at_once,
        two_groups_share_nothing,
        a_static_member_that_left_comes_back_as_another,
        a_third_member_takes_its_share_and_gives_it_back,
        a_topic_that_grows_is_shared_anew,
        a_missing_topic_is_told_and_joined_when_it_comes,
        a_topic_that_is_deleted_is_told_to_its_reader,
        a_process_that_was_stopped_commits_nothing_after_its_session;
}

#[test]
#[ignore = "a process that a scenario starts"]
fn zombie_process() {
    on_kafka::zombie_process();
}
