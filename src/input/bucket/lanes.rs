//! The lanes of a bucket: the folders whose dates are listed. They are learned now and then, not with every poll.
//!
//! ```text
//!   databricks_delivery   workspaceId=<id>                                    one listing for all
//!   Azure's layouts       <container>/resourceId=/…/workspaces/<name>         one for the containers, nine for each
//! ```
//!
//! Where there are several containers, one that cannot be listed does not stop the others.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use object_store::ObjectStore;
use object_store::path::Path;
use tokio::time::Instant;

use super::azure_path::{Containers, Lane, date_below, date_folders};
use super::layout::{Layout, below, date_of, workspace_of};
use crate::time::Date;

/// How often the workspaces of a delivery bucket are listed, and the containers of an account.
const WORKSPACES_INTERVAL: Duration = Duration::from_secs(300);
/// How often the resources within a container are looked for.
const RESOURCES_INTERVAL: Duration = Duration::from_secs(1800);
/// Containers walked through at once.
const WALKS: usize = 8;

/// A listing that failed: of which folder, and why.
pub(super) type Refused = (Path, object_store::Error);

/// The lanes that are known.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    listed: Option<Instant>,
    /// By the folder they were found in: the container, or nothing.
    known: BTreeMap<String, Known>,
}

#[derive(Debug)]
struct Known {
    lanes: Vec<Path>,
    walked: Instant,
}

impl Lanes {
    /// All lanes, after learning what is due; and what could not be learned. Where the store is a directory, learning
    /// costs nothing and is always due.
    ///
    /// # Errors
    /// [`Refused`] if nothing at all could be learned.
    pub(super) async fn learn(
        &mut self,
        store: &dyn ObjectStore,
        prefix: &Path,
        layout: &Layout,
        local: bool,
    ) -> Result<(Vec<Path>, Vec<Refused>), Refused> {
        let due = |at: Option<Instant>, interval| local || at.is_none_or(|at| at.elapsed() >= interval);
        let mut refused = Vec::new();
        match layout {
            Layout::DatabricksDelivery { .. } => {
                // Little is lost by asking where nothing is known yet.
                let empty = self.known.values().all(|known| known.lanes.is_empty());
                if empty || due(self.listed, WORKSPACES_INTERVAL) {
                    let folders = folders(store, prefix).await.map_err(|error| (prefix.clone(), error))?;
                    let wanted = |folder: &Path| {
                        workspace_of(name(folder)).is_some_and(|workspace| layout.wants_workspace(workspace))
                    };
                    let lanes = folders.into_iter().filter(wanted).collect();
                    self.known.insert(String::new(), Known { lanes, walked: Instant::now() });
                    self.listed = Some(Instant::now());
                }
            }
            Layout::Azure { containers, .. } => {
                if self.known.is_empty() || due(self.listed, WORKSPACES_INTERVAL) {
                    let found = folders(store, prefix).await.map_err(|error| (prefix.clone(), error))?;
                    let found: Vec<Path> =
                        found.into_iter().filter(|container| containers.wants(name(container))).collect();
                    self.known.retain(|known, _| found.iter().any(|container| name(container) == known));
                    self.listed = Some(Instant::now());
                    let new: Vec<Path> = found
                        .into_iter()
                        .filter(|container| {
                            let known = self.known.get(name(container));
                            due(known.map(|known| known.walked), RESOURCES_INTERVAL)
                        })
                        .collect();
                    let walks = stream::iter(new).map(|container| async move {
                        let lanes = walk(store, &container, containers).await;
                        (container, lanes)
                    });
                    let mut walks = walks.buffer_unordered(WALKS);
                    while let Some((container, lanes)) = walks.next().await {
                        match lanes {
                            Ok(lanes) => {
                                let name = name(&container).to_owned();
                                self.known.insert(name, Known { lanes, walked: Instant::now() });
                            }
                            Err(error) => {
                                // With the next poll again.
                                self.listed = None;
                                refused.push((container, error));
                            }
                        }
                    }
                }
            }
            Layout::Any { .. } => {}
        }
        Ok((self.known.values().flat_map(|known| known.lanes.iter().cloned()).collect(), refused))
    }
}

/// The lanes of one container, found folder by folder.
async fn walk(
    store: &dyn ObjectStore,
    container: &Path,
    containers: &Containers,
) -> Result<Vec<Path>, object_store::Error> {
    let (mut lanes, mut open) = (Vec::new(), vec![container.clone()]);
    while let Some(at) = open.pop() {
        for folder in folders(store, &at).await? {
            match below(container, &folder).map(|path| containers.layout.lane(&path)) {
                Some(Lane::Whole(_)) => lanes.push(folder),
                Some(Lane::Partly) => open.push(folder),
                Some(Lane::No) | None => {}
            }
        }
    }
    Ok(lanes)
}

/// The folder of a date in a lane.
pub(super) fn date_folder(layout: &Layout, lane: &Path, date: Date) -> Path {
    match layout {
        Layout::Azure { .. } => {
            date_folders(date).iter().fold(lane.clone(), |path, folder| path.join(folder.as_str()))
        }
        _ => lane.clone().join(format!("date={date}").as_str()),
    }
}

/// All dates that a lane has.
pub(super) async fn dates(
    store: &dyn ObjectStore,
    layout: &Layout,
    lane: &Path,
) -> Result<Vec<Date>, object_store::Error> {
    if !matches!(layout, Layout::Azure { .. }) {
        return Ok(folders(store, lane).await?.iter().filter_map(|folder| date_of(name(folder))).collect());
    }
    let mut dates = Vec::new();
    for year in folders(store, lane).await? {
        for month in folders(store, &year).await? {
            for day in folders(store, &month).await? {
                dates.extend(below(lane, &day).and_then(|path| date_below(&path)));
            }
        }
    }
    Ok(dates)
}

/// The folders right below a prefix, as the store names them: to join the names would write letters such as `ö` or `%`
/// in another way, and a folder of that name is not there.
async fn folders(store: &dyn ObjectStore, prefix: &Path) -> Result<Vec<Path>, object_store::Error> {
    let listed = match store.list_with_delimiter(Some(prefix)).await {
        Err(object_store::Error::NotFound { .. }) => return Ok(Vec::new()),
        listed => listed?,
    };
    Ok(listed.common_prefixes)
}

/// The last part of a folder's path.
fn name(folder: &Path) -> &str {
    folder.filename().unwrap_or_default()
}
