//! What the flow table keeps, forgets and refuses, against a map.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::flow::key::KeyV4;

const TIMEOUT: u32 = 1_000;
/// Where flows land is chance; tests repeat.
const SEED: Option<u64> = Some(7);

fn timeouts() -> Timeouts {
    Timeouts::new(|_| TIMEOUT)
}

fn key(number: u32) -> KeyV4 {
    KeyV4 { source: number.to_be_bytes(), destination: [192, 0, 2, 1], ports: [1, 2, 3, 4], protocol: 17 }
}

fn insert<M: Memory>(table: &mut Table<KeyV4, M>, number: u32, now: u32) -> Result<(), Full> {
    let key = key(number);
    let (hash, now) = (table.hash(&key), Tick(now));
    let vacancy = table.vacancy(hash, now, &timeouts())?;
    table.fill(vacancy, hash, key, TargetId(number), FlowState::Udp, now);
    Ok(())
}

fn target(table: &Table<KeyV4>, number: u32) -> Option<u32> {
    let key = key(number);
    table.find(table.hash(&key), &key).map(|slot| table.entry(slot).target.0)
}

#[test]
fn it_holds_what_it_was_made_for_and_then_refuses() {
    for capacity in [1, 7, 1_000, 100_000] {
        let mut table: Table<KeyV4> = Table::new(capacity, SEED).expect("memory");
        for number in 0..capacity {
            assert!(insert(&mut table, number, 0).is_ok(), "flow {number} of {capacity}");
        }
        assert_eq!(insert(&mut table, capacity, 0), Err(Full));
        assert_eq!(table.len(), capacity as usize);
        for number in 0..capacity {
            assert_eq!(target(&table, number), Some(number));
        }
    }
}

#[test]
fn a_full_table_takes_new_flows_when_old_ones_are_past_their_time() {
    let mut table: Table<KeyV4> = Table::new(64, SEED).expect("memory");
    (0..64).for_each(|number| assert!(insert(&mut table, number, 0).is_ok()));
    assert_eq!(insert(&mut table, 64, TIMEOUT), Err(Full));
    let taken = (64..128).filter(|&number| insert(&mut table, number, TIMEOUT + 1).is_ok()).count();
    assert!(taken >= 32, "{taken} of 64 found an expired entry in their two buckets");
    assert_eq!(table.expired(), taken as u64);
    assert_eq!(table.len(), 64);
}

#[test]
fn ageing_reclaims_everything_that_is_past_its_time_in_one_round() {
    let mut table: Table<KeyV4> = Table::new(1_000, SEED).expect("memory");
    (0..1_000).for_each(|number| assert!(insert(&mut table, number, number).is_ok()));
    for _ in 0..table.groups() {
        table.age(Tick(TIMEOUT + 500), 1, &timeouts());
    }
    assert_eq!(table.len(), 500, "flows last seen at 500 and later remain");
    assert_eq!(table.expired(), 500);
    assert!(table.iter().all(|entry| entry.last_seen.0 >= 500));
}

#[test]
fn an_expired_entry_is_not_found_alive() {
    let mut table: Table<KeyV4> = Table::new(8, SEED).expect("memory");
    insert(&mut table, 1, 0).expect("room");
    let (key, timeouts) = (key(1), timeouts());
    let hash = table.hash(&key);
    assert!(table.find_live(hash, &key, Tick(TIMEOUT), &timeouts).is_some());
    assert!(table.find_live(hash, &key, Tick(TIMEOUT + 1), &timeouts).is_none());
    assert!(table.is_empty());
}

/// Keys that belong into the same two groups of a table, the first in the first; whoever knew the seed could send them.
fn colliding(table: &Table<KeyV4>, count: usize) -> Vec<u32> {
    let groups = |number: u32| {
        let hash = table.hash(&key(number));
        (table.first_group(hash), table.second_group(hash))
    };
    (0..).filter(|number| groups(*number) == groups(0)).take(count).collect()
}

#[test]
fn keys_that_all_collide_take_two_groups_and_are_then_refused() {
    let mut table: Table<KeyV4> = Table::new(1_000, SEED).expect("memory");
    let numbers = colliding(&table, 100);
    let fits = 2 * GROUP;
    for (place, number) in numbers.iter().enumerate() {
        assert_eq!(insert(&mut table, *number, 0).is_ok(), place < fits, "colliding key {place}");
    }
    assert!(numbers[..fits].iter().all(|number| target(&table, *number) == Some(*number)));
    assert!(numbers[fits..].iter().all(|number| target(&table, *number).is_none()));
    // Others with the same first group are displaced; once there is room again, nobody looks elsewhere any more.
    let first = table.first_group(table.hash(&key(0)));
    assert_eq!(table.groups[first].displaced(), GROUP as u16);
    for number in &numbers[..fits] {
        let slot = table.find(table.hash(&key(*number)), &key(*number)).expect("it is there");
        table.remove(slot);
    }
    assert_eq!((table.len(), table.groups[first].displaced()), (0, 0));
}

#[test]
fn a_hint_is_good_for_the_entry_that_stood_there_and_no_other() {
    let mut table: Table<KeyV4> = Table::new(100, SEED).expect("memory");
    insert(&mut table, 1, 0).expect("room");
    let (one, two) = (key(1), key(2));
    let hash = table.hash(&one);
    let hint = table.locate(hash, &mut false);
    assert!(table.hinted(hint, &one.words()).is_some_and(|record| record.target() == TargetId(1)));
    assert!(table.hinted(hint, &two.words()).is_none());
    assert!(table.hinted(Hint::NONE, &one.words()).is_none());
    let slot = table.find(hash, &one).expect("it is there");
    table.remove(slot);
    assert!(table.hinted(hint, &one.words()).is_none(), "removed since");
}

#[test]
fn a_room_that_was_found_is_good_until_somebody_has_it() {
    let mut table: Table<KeyV4> = Table::new(100, SEED).expect("memory");
    let (hash, mut seconds) = (table.hash(&key(1)), false);
    let hint = table.locate(hash, &mut seconds);
    assert!(hint.is_room() && !seconds && table.hinted(hint, &key(1).words()).is_none());
    let vacancy = table.hinted_room(hint).expect("it is there");
    table.fill(vacancy, hash, key(1), TargetId(1), FlowState::Udp, Tick(0));
    assert_eq!(target(&table, 1), Some(1));
    assert!(table.hinted_room(hint).is_none(), "taken since");
    for hint in [Hint::NONE, Hint::SECOND, table.locate(hash, &mut seconds)] {
        assert!(!hint.is_room() && table.hinted_room(hint).is_none());
    }
}

#[test]
fn who_stands_in_the_second_group_is_found_by_a_second_look_and_no_room_is_found_for_others() {
    let mut table: Table<KeyV4> = Table::new(1_000, SEED).expect("memory");
    let numbers = colliding(&table, GROUP + 5);
    let locate = |table: &Table<KeyV4>, number| {
        let (hash, mut seconds) = (table.hash(&key(number)), false);
        match table.locate(hash, &mut seconds) {
            Hint::SECOND if seconds => table.locate_second(hash),
            hint => hint,
        }
    };
    let rooms: Vec<Hint> = numbers.iter().map(|number| locate(&table, *number)).collect();
    for number in &numbers[..GROUP + 4] {
        insert(&mut table, *number, 0).expect("room");
    }
    for number in &numbers[..GROUP + 4] {
        let hint = locate(&table, *number);
        assert!(table.hinted(hint, &key(*number).words()).is_some_and(|record| record.target() == TargetId(*number)));
    }
    assert_eq!(locate(&table, numbers[GROUP + 4]), Hint::NONE);
    // There may be an entry of the same key among the displaced ones, so that a free slot is no room.
    let slot = table.find(table.hash(&key(0)), &key(0)).expect("it is there");
    table.remove(slot);
    assert!(rooms.iter().all(|hint| hint.is_room() && table.hinted_room(*hint).is_none()));
}

/// One step of the model test.
#[derive(Clone, Debug)]
enum Operation {
    Insert(u32),
    Find(u32),
    Remove(u32),
    Wait(u32),
    Age(usize),
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => (0..96_u32).prop_map(Operation::Insert),
        4 => (0..96_u32).prop_map(Operation::Find),
        1 => (0..96_u32).prop_map(Operation::Remove),
        1 => (0..TIMEOUT).prop_map(Operation::Wait),
        1 => (0..4_usize).prop_map(Operation::Age),
    ]
}

proptest! {
    /// Against a map of key -> last seen: a live key is found, an absent one is not, nothing is lost or invented.
    #[test]
    fn it_behaves_like_a_map_that_forgets(operations in prop::collection::vec(operation(), 1..400)) {
        let mut table: Table<KeyV4> = Table::new(64, SEED).expect("memory");
        let mut oracle: HashMap<u32, u32> = HashMap::new();
        let mut now = 0;
        for operation in operations {
            match operation {
                Operation::Insert(number) => {
                    let (key, timeouts) = (key(number), timeouts());
                    let hash = table.hash(&key);
                    let live = oracle.get(&number).is_some_and(|seen| now - seen <= TIMEOUT);
                    prop_assert_eq!(table.find_live(hash, &key, Tick(now), &timeouts).is_some(), live);
                    if !live {
                        match insert(&mut table, number, now) {
                            Ok(_) => drop(oracle.insert(number, now)),
                            Err(Full) => drop(oracle.remove(&number)),
                        }
                    }
                }
                Operation::Find(number) => {
                    let live = oracle.get(&number).is_some_and(|seen| now - seen <= TIMEOUT);
                    let found = target(&table, number);
                    prop_assert!(found.is_none_or(|target| target == number));
                    prop_assert!(!live || found.is_some(), "flow {} was lost", number);
                    prop_assert!(oracle.contains_key(&number) || found.is_none(), "flow {} was invented", number);
                }
                Operation::Remove(number) => {
                    let key = key(number);
                    if let Some(slot) = table.find(table.hash(&key), &key) {
                        table.remove(slot);
                    }
                    oracle.remove(&number);
                }
                Operation::Wait(milliseconds) => now += milliseconds,
                Operation::Age(buckets) => table.age(Tick(now), buckets, &timeouts()),
            }
            prop_assert_eq!(table.len(), table.iter().count());
            prop_assert!(table.len() <= 64);
        }
    }
}
