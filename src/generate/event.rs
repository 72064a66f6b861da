//! One generated event: who did what, before it takes the shape of a route.

use fastrand::Rng;

use super::catalog::{Action, Answer, Param, Pool, Service};
use super::text;
use crate::time::Millis;

/// Where and when an event happens; the rest follows from the event's own number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scene<'a> {
    pub(super) pool: &'a Pool,
    /// The workspace that acts. Account-level events name it in their parameters.
    pub(super) workspace_id: &'a str,
    pub(super) time: Millis,
    /// Azure writes `ip:port` now and then.
    pub(super) azure: bool,
}

/// One event. The texts are JSON, so that every shape copies them as they are; the buffers are reused.
#[derive(Debug, Default)]
pub(super) struct Event {
    pub(super) what: Option<(&'static Service, &'static Action)>,
    pub(super) time: Option<Millis>,
    /// Without quotes.
    pub(super) user: String,
    /// A string or null.
    pub(super) source_address: String,
    /// A string or null.
    pub(super) user_agent: String,
    /// A string or null.
    pub(super) session_id: String,
    /// Without quotes; no two events of a bucket share one.
    pub(super) request_id: String,
    /// Without quotes: the id that Azure gives to the message.
    pub(super) log_id: String,
    /// An object.
    pub(super) request_params: String,
    pub(super) response: Option<Response>,
    /// The response's `result`: a string or null.
    pub(super) result: String,
}

/// How the action ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    /// JSON text without quotes.
    pub(super) error: Option<&'static str>,
}

const OK: Response = Response { status: 200, error: None };
const FAILURES: &[Response] = &[
    Response {
        status: 403,
        error: Some("PERMISSION_DENIED: User does not have USE SCHEMA on Schema 'main.hr_restricted'."),
    },
    Response { status: 401, error: Some("Invalid access token.") },
    Response {
        status: 404,
        error: Some("RESOURCE_DOES_NOT_EXIST: The object does not exist, or you have no access to it."),
    },
    Response {
        status: 400,
        error: Some(
            r"[TABLE_OR_VIEW_NOT_FOUND] The table or view `main`.`sales`.`größen` cannot be found. SQLSTATE: 42P01",
        ),
    },
    Response {
        status: 500,
        error: Some(r#"INTERNAL_ERROR: upstream said \"try again\"\nrequest was not retried"#),
    },
];
/// Not an HTTP status: how a failed command is reported.
const COMMAND_FAILED: Response = Response { status: 1, error: Some("Command failed") };

/// How many requests out of a thousand lose their response, report status 1, fail, have a text cut, or all parameters.
const LOST_RESPONSES: u32 = 5;
const FAILED_COMMANDS: u32 = 10;
const FAILED_CALLS: u32 = 45;
const CUT_TEXTS: u32 = 15;
const CUT_PARAMETERS: u32 = 2;

/// Scrambles a number without losing one: unequal numbers stay unequal (the finalizer of SplitMix64).
pub(super) fn scramble(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Appends the `requestId` of the event with this number, without quotes.
pub(super) fn push_request_id(unique: u64, rng: &mut Rng, out: &mut String) {
    if rng.bool() {
        out.push_str("ServiceMain-");
        text::push_hex(unique, 16, out);
    } else {
        text::push_uuid(unique, 4, rng, out);
    }
}

impl Event {
    /// Becomes the event with this number (see [`scramble`]).
    pub(super) fn fill(&mut self, unique: u64, scene: Scene<'_>) {
        let mut rng = Rng::with_seed(unique);
        let rng = &mut rng;
        self.clear();
        push_request_id(unique, rng, &mut self.request_id);
        text::push_uuid(unique, 3, rng, &mut self.log_id);
        text::push_user(rng, &mut self.user);
        text::push_user_agent(rng, &mut self.user_agent);
        text::push_session(rng, &mut self.session_id);
        self.time = Some(scene.time);
        self.what = scene.pool.pick(rng);
        let Some((_, action)) = self.what else { return };
        if matches!(action.answer, Answer::Nothing) {
            self.source_address.push_str("null");
        } else {
            text::push_address(scene.azure, rng, &mut self.source_address);
        }
        self.fill_params(action, scene.workspace_id, rng);
        self.fill_response(action, rng);
    }

    fn clear(&mut self) {
        self.user.clear();
        self.source_address.clear();
        self.user_agent.clear();
        self.session_id.clear();
        self.request_id.clear();
        self.log_id.clear();
        self.request_params.clear();
        self.result.clear();
    }

    fn fill_params(&mut self, action: &Action, workspace_id: &str, rng: &mut Rng) {
        if rng.u32(..1000) < CUT_PARAMETERS {
            self.request_params.push_str(r#"{"TRUNCATED":""}"#);
            return;
        }
        for (index, (key, param)) in action.params.iter().enumerate() {
            self.request_params.push_str(if index == 0 { "{\"" } else { ",\"" });
            self.request_params.push_str(key);
            self.request_params.push_str("\":\"");
            push_param(*param, workspace_id, &self.user, rng, &mut self.request_params);
            self.request_params.push('"');
        }
        self.request_params.push_str(if action.params.is_empty() { "{}" } else { "}" });
    }

    fn fill_response(&mut self, action: &Action, rng: &mut Rng) {
        let drawn = rng.u32(..1000);
        self.response = if matches!(action.answer, Answer::Nothing) || drawn < LOST_RESPONSES {
            None
        } else if drawn < LOST_RESPONSES + FAILED_COMMANDS {
            Some(COMMAND_FAILED)
        } else if drawn < LOST_RESPONSES + FAILED_COMMANDS + FAILED_CALLS {
            rng.choice(FAILURES).copied()
        } else {
            Some(OK)
        };
        match (action.answer, self.response) {
            (Answer::NewId(key), Some(response)) if response.error.is_none() => {
                self.result.push_str("\"{\\\"");
                self.result.push_str(key);
                self.result.push_str("\\\":");
                text::push_number(rng.u64(100_000_000_000_000_000..u64::MAX / 2), &mut self.result);
                self.result.push_str("}\"");
            }
            _ => self.result.push_str("null"),
        }
    }
}

fn push_param(param: Param, workspace_id: &str, user: &str, rng: &mut Rng, out: &mut String) {
    match param {
        Param::Fixed(fixed) => out.push_str(fixed),
        Param::OneOf(texts) => out.push_str(text::pick(rng, texts)),
        Param::Number(bound) => text::push_number(rng.u64(..bound), out),
        Param::Seconds => {
            text::push_number(rng.u64(..900), out);
            out.push('.');
            text::push_number(rng.u64(100..1000), out);
        }
        Param::Id => text::push_number(rng.u64(1_000_000_000_000_000..u64::MAX / 2), out),
        Param::Uuid => text::push_random_uuid(rng, out),
        Param::Sha256 => (0..4).for_each(|_| text::push_hex(rng.u64(..), 16, out)),
        Param::User => out.push_str(user),
        Param::WorkspaceId => out.push_str(workspace_id),
        Param::Metastore => out.push_str("0d9c8b7a-6f5e-4d3c-2b1a-09f8e7d6c5b4"),
        Param::TableName => text::push_table(rng, out),
        Param::NotebookPath => text::push_notebook_path(rng, out),
        Param::VolumePath => text::push_volume_path(rng, out),
        Param::Sql(bytes) => {
            text::push_sql(bytes, rng, out);
            push_cut(rng, out);
        }
        Param::Python(bytes) => {
            text::push_python(bytes, rng, out);
            push_cut(rng, out);
        }
    }
}

/// Marks a text as cut, the way the platform does with long ones.
fn push_cut(rng: &mut Rng, out: &mut String) {
    if rng.u32(..1000) < CUT_TEXTS {
        out.push_str("... truncated");
    }
}
