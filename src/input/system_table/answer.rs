//! What the Statement Execution API answers, as far as it is needed.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

/// The answer to a statement that was started or asked for.
#[derive(Debug, Deserialize)]
pub(super) struct Answer<'a> {
    pub(super) statement_id: String,
    pub(super) status: Status,
    pub(super) manifest: Option<Manifest>,
    #[serde(borrow)]
    pub(super) result: Option<Part<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Status {
    pub(super) state: State,
    #[serde(default)]
    pub(super) error: Option<ErrorBody>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum State {
    Pending,
    Running,
    Succeeded,
    Failed,
    Canceled,
    Closed,
}

/// An error of a request or of a statement.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ErrorBody {
    pub(super) error_code: String,
    pub(super) message: String,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Manifest {
    #[serde(default)]
    pub(super) total_row_count: Option<u64>,
    #[serde(default)]
    pub(super) truncated: bool,
}

/// One chunk of a result: its rows, or links to them.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Part<'a> {
    #[serde(default)]
    pub(super) next_chunk_index: Option<u64>,
    #[serde(borrow, default)]
    pub(super) data_array: Option<&'a RawValue>,
    #[serde(default)]
    pub(super) external_links: Option<Vec<Link>>,
}

/// Where a chunk lies. No `Debug`: whoever has the address can read the rows.
#[derive(Deserialize)]
pub(super) struct Link {
    pub(super) external_link: String,
    #[serde(default)]
    pub(super) expiration: Option<String>,
    #[serde(default)]
    pub(super) http_headers: Option<BTreeMap<String, String>>,
    #[serde(default)]
    pub(super) next_chunk_index: Option<u64>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Link")
    }
}
/// What the workspace says of a warehouse.
#[derive(Debug, Deserialize)]
pub(super) struct WarehouseState {
    /// `RUNNING`, `STOPPED` and the like.
    pub(super) state: String,
}
