//! What happens in the generated workspaces: a selection of the documented services and actions, with their weights.

use fastrand::Rng;

mod services;

pub(super) use services::SERVICES;

/// A service of the audit log and its names on the routes.
#[derive(Debug)]
pub(super) struct Service {
    /// `serviceName` of the record.
    pub(super) name: &'static str,
    /// Azure's diagnostic category; `None` where Azure has none.
    pub(super) category: Option<&'static str>,
    /// The Log Analytics table; `None` where data export carries nothing.
    pub(super) table: Option<Table>,
    pub(super) level: Level,
    pub(super) actions: &'static [Action],
}

/// A Log Analytics table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table {
    pub(super) name: &'static str,
    /// Tables of 2024 and later hold identity, parameters and response as objects, and spell `SourceIpAddress`.
    pub(super) dynamic: bool,
}

/// Which records of a delivery bucket a service writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Workspace,
    Account,
    Both,
}

/// One action and how its record is filled.
#[derive(Debug)]
pub(super) struct Action {
    pub(super) name: &'static str,
    /// How often it happens, relative to all others.
    pub(super) weight: u32,
    pub(super) params: &'static [(&'static str, Param)],
    pub(super) answer: Answer,
}

/// The content of one request parameter.
#[derive(Clone, Copy, Debug)]
pub(super) enum Param {
    /// Always this text, written with JSON's escapes.
    Fixed(&'static str),
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// A whole number below the bound, as text.
    Number(u64),
    /// Seconds with three decimals.
    Seconds,
    /// An id of 16 to 19 digits: above 2^53.
    Id,
    Uuid,
    Sha256,
    User,
    WorkspaceId,
    Metastore,
    /// `catalog.schema.table`.
    TableName,
    NotebookPath,
    VolumePath,
    /// A SQL statement of about this many bytes.
    Sql(usize),
    /// Python code of about this many bytes.
    Python(usize),
}

/// What the response holds when all goes well.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answer {
    /// A status and nothing else.
    Status,
    /// A JSON object with one number, as text: the result of a call that creates something.
    NewId(&'static str),
    /// No response at all.
    Nothing,
}

/// The actions that may appear in one kind of object, by weight.
#[derive(Debug)]
pub(super) struct Pool {
    /// Each with the sum of the weights up to and including its own.
    entries: Vec<(u32, &'static Service, &'static Action)>,
    total: u32,
}

impl Pool {
    /// All actions of these services.
    pub(super) fn of(services: impl Iterator<Item = &'static Service>) -> Self {
        let mut entries = Vec::new();
        let mut total = 0;
        for service in services {
            for action in service.actions {
                total += action.weight;
                entries.push((total, service, action));
            }
        }
        Self { entries, total }
    }

    pub(super) fn pick(&self, rng: &mut Rng) -> Option<(&'static Service, &'static Action)> {
        let drawn = rng.u32(..self.total.max(1));
        let at = self.entries.partition_point(|(sum, _, _)| *sum <= drawn);
        self.entries.get(at).map(|(_, service, action)| (*service, *action))
    }
}
