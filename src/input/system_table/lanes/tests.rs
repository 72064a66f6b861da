use super::*;
use crate::state::sqlite::SqliteState;
use crate::state::{Change, State};

fn at(text: &str) -> Millis {
    Millis::parse(&format!("2026-01-05T{text}:00Z")).unwrap()
}

fn ids<const N: usize>(shipped: [u128; N]) -> Ids {
    Ids { shipped: shipped.into(), ..Ids::default() }
}

fn knows(lanes: &Lanes, id: u128) -> bool {
    lanes.ids(at("10:00")).is_some_and(|ids| ids.contains(id))
}

struct Place {
    state: Arc<dyn State>,
    in_flight: Arc<InFlight>,
    _directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let state = Arc::new(SqliteState::open(directory.path()).unwrap());
        Self { state, in_flight: Arc::default(), _directory: directory }
    }

    async fn lanes(&self) -> (Lanes, Vec<(Millis, Millis)>) {
        let resume = Resume::new(Arc::clone(&self.state), "a/b");
        Lanes::load("table".to_owned(), resume, Arc::clone(&self.in_flight)).await.unwrap()
    }

    async fn commit(&self, step: Step) {
        let Step { partition, position, note } = step;
        let change = Change { partition: partition.clone(), position, note };
        self.state.commit("a/b", vec![change], Vec::new()).await.unwrap();
        self.in_flight.remove(&partition);
    }
}

#[tokio::test]
async fn what_is_committed_of_a_lane_is_found_again() {
    let place = Place::new();
    let (mut lanes, read) = place.lanes().await;
    assert_eq!(read, []);
    lanes.open(at("10:00")).await.unwrap();
    let window = Window { from: at("10:00"), to: at("10:35") };
    let step = lanes.step(at("10:00"), &ids([1, 2]), at("10:30"), Some(window)).unwrap();
    assert_eq!(step.partition.as_str(), "table/2026-01-05T10");
    assert_eq!(step.position.as_str(), "2026-01-05T10:35:00.000Z 2");
    place.commit(step).await;
    let uncommitted = lanes.step(at("10:00"), &ids([3]), at("10:30"), None).unwrap();
    drop(uncommitted);
    let (mut again, read) = place.lanes().await;
    assert_eq!(read, [(at("10:00"), at("10:35"))]);
    again.open(at("10:00")).await.unwrap();
    let known = [1, 2, 3].map(|id| knows(&again, id));
    assert_eq!(known, [true, true, false]);
}

#[tokio::test]
async fn ids_leave_memory_only_when_they_are_in_the_state() {
    let place = Place::new();
    let (mut lanes, _) = place.lanes().await;
    lanes.open(at("10:00")).await.unwrap();
    let step = lanes.step(at("10:00"), &ids([1]), at("10:30"), None).unwrap();
    lanes.let_go(at("12:00"));
    assert!(knows(&lanes, 1), "it is not committed yet");
    place.commit(step).await;
    lanes.let_go(at("10:59"));
    assert!(knows(&lanes, 1), "the hour is not over");
    lanes.let_go(at("12:00"));
    assert!(!knows(&lanes, 1));
    lanes.open(at("10:00")).await.unwrap();
    assert!(knows(&lanes, 1));
}

/// A lane of ten o'clock with one row, first read at this time.
async fn one_lane(place: &Place, asked: &str) -> Lanes {
    let (mut lanes, _) = place.lanes().await;
    let whole = Window { from: at("10:00"), to: at("11:00") };
    let step = lanes.step(at("10:00"), &ids([7]), at(asked), Some(whole)).unwrap();
    place.commit(step).await;
    lanes
}

#[tokio::test]
async fn a_lane_is_closed_when_it_was_read_late_enough_and_leaves_no_ids() {
    let (place, look_back) = (Place::new(), Some(3 * HOUR));
    let mut lanes = one_lane(&place, "14:00").await;
    let half = Window { from: at("09:00"), to: at("09:30") };
    place.commit(lanes.step(at("09:00"), &ids([7]), at("14:00"), Some(half)).unwrap()).await;
    assert_eq!(lanes.done(at("10:59"), look_back), [], "polls still read it");
    assert_eq!(lanes.done(at("11:00"), look_back), [at("10:00")]);
    let step = lanes.close(at("10:00"));
    assert_eq!((step.partition.as_str(), step.position.as_str()), ("table/2026-01-05T10", "closed"));
    place.commit(step).await;
    assert_eq!(lanes.done(at("12:00"), look_back), [], "half an hour waits for its rest");
    let done = ["08:00", "09:00", "10:00"].map(|hour| lanes.has_done(at(hour), look_back));
    assert_eq!(done, [true, false, false], "what is older than all that is open is closed");
    let (_, read) = place.lanes().await;
    assert_eq!(read, [(at("09:00"), at("09:30")), (at("10:00"), at("11:00"))]);
    let left = place.state.notes("a/b", &Partition::new("table/2026-01-05T10")).await.unwrap();
    assert!(left.is_empty());
    assert_eq!(place.in_flight.partitions(), 0);
}

#[tokio::test]
async fn a_lane_that_was_read_early_waits_for_a_late_count() {
    let (place, look_back) = (Place::new(), 3 * HOUR);
    let mut lanes = one_lane(&place, "13:59").await;
    let day = Window { from: at("00:00"), to: at("23:00") };
    let (one, two) = (HashMap::from([(at("10:00"), 1)]), HashMap::from([(at("10:00"), 2)]));
    let after = |lanes: &mut Lanes, rows, counted_at| {
        lanes.compare(day, rows, at(counted_at), look_back);
        !lanes.done(at("12:00"), Some(look_back)).is_empty()
    };
    assert!(!after(&mut lanes, &one, "13:59"), "a row may still come");
    assert!(!after(&mut lanes, &two, "14:00"), "one has come");
    // A start in between does not make it any more certain.
    let (mut again, _) = place.lanes().await;
    assert_eq!(again.done(at("12:00"), Some(look_back)), []);
    assert!(after(&mut again, &one, "14:00"));
    assert_eq!(lanes.done(at("12:00"), None), [at("10:00")], "without counts there is nothing to wait for");
}

#[tokio::test]
async fn a_lane_whose_rows_are_fewer_than_were_read_is_done_with_once_reading_again_finds_nothing() {
    let (place, look_back) = (Place::new(), 3 * HOUR);
    let mut lanes = one_lane(&place, "11:30").await;
    let day = Window { from: at("00:00"), to: at("23:00") };
    // The workspace was deleted, and its rows with it.
    let none = HashMap::new();
    assert_eq!(lanes.compare(day, &none, at("14:30"), look_back), [at("10:00")], "read once more");
    assert_eq!(lanes.done(at("12:00"), Some(look_back)), [], "a row may have come for one that went");
    assert_eq!(lanes.compare(day, &none, at("15:30"), look_back), [], "not again and again");
    assert_eq!(lanes.done(at("12:00"), Some(look_back)), [at("10:00")]);
}

#[tokio::test]
async fn a_lane_that_still_changes_is_read_again_however_late_it_is_counted() {
    let (place, look_back) = (Place::new(), 3 * HOUR);
    let mut lanes = one_lane(&place, "11:30").await;
    let day = Window { from: at("00:00"), to: at("23:00") };
    let rows = |count| HashMap::from([(at("10:00"), count)]);
    assert_eq!(lanes.compare(day, &rows(2), at("14:30"), look_back), [at("10:00")]);
    place.commit(lanes.step(at("10:00"), &ids([8]), at("14:31"), None).unwrap()).await;
    assert_eq!(lanes.compare(day, &rows(3), at("15:30"), look_back), [at("10:00")], "more have come");
    assert_eq!(lanes.compare(day, &rows(4), at("16:30"), look_back), [at("10:00")], "and more");
    assert_eq!(lanes.done(at("12:00"), Some(look_back)), []);
}

#[tokio::test]
async fn a_lane_does_not_pass_what_was_not_read() {
    let (mut lanes, _) = Place::new().lanes().await;
    let gap = Window { from: at("10:20"), to: at("11:00") };
    assert!(lanes.step(at("10:00"), &Ids::default(), at("10:30"), Some(gap)).is_none());
    let next = Window { from: at("09:30"), to: at("10:20") };
    assert!(lanes.step(at("10:00"), &Ids::default(), at("10:30"), Some(next)).is_some());
    assert!(lanes.step(at("10:00"), &Ids::default(), at("10:30"), Some(gap)).is_some());
    let rows = HashMap::from([(at("10:00"), 0)]);
    let day = Window { from: at("00:00"), to: at("23:00") };
    assert_eq!(lanes.compare(day, &rows, at("10:30"), HOUR), []);
    assert_eq!(lanes.compare(day, &HashMap::from([(at("10:00"), 1)]), at("10:30"), HOUR), [at("10:00")]);
}

#[test]
fn what_was_left_out_is_told_from_what_was_shipped() {
    let written = Ids { shipped: [1, 2].into(), left_out: [3, 4].into() };
    let notes = [written.encode(), ids([5]).encode()];
    let read = Ids::decode(&notes);
    assert_eq!(read, Ids { shipped: [1, 2, 5].into(), left_out: [3, 4].into() });
    assert_eq!(read.len(), 5);
    assert_ne!(id_of("ffffffff-ffff-ffff-ffff-ffffffffffff"), LEFT_OUT);
}

#[test]
fn an_id_is_told_by_its_digits_whatever_their_form() {
    let id = id_of("5d1f0b6e-2c3d-3e4f-8a5b-6c7d8e9f0a1b");
    assert_eq!(id, 0x5d1f_0b6e_2c3d_3e4f_8a5b_6c7d_8e9f_0a1b);
    assert_eq!(id, id_of("5D1F0B6E2C3D3E4F8A5B6C7D8E9F0A1B"));
    assert_ne!(id_of("ServiceMain-1"), id_of("ServiceMain-2"));
    assert_ne!(id_of("+d1f0b6e2c3d3e4f8a5b6c7d8e9f0a1b"), 0x0d1f_0b6e_2c3d_3e4f_8a5b_6c7d_8e9f_0a1b);
}
