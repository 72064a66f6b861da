//! What the workspace answers: tokens, statements, chunks of results, files behind links.

use std::time::Duration;

use auditferry::time::Millis;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{
    CLIENT, Reply, Request, Rights, STATEMENTS, State, Statement, TableRow, WAREHOUSE, refuse, reply, text,
};

const INLINE_LIMIT: usize = 26_214_400;
const COLUMNS: usize = 17;
const TOKEN_LIFE: Duration = Duration::from_secs(3600);

impl State {
    pub(super) fn token(&mut self, request: &Request, now: Millis) -> Reply {
        let wanted = format!("Basic {}", STANDARD.encode(format!("{}:{}", CLIENT.0, self.secret)));
        if request.body != b"grant_type=client_credentials&scope=all-apis" {
            self.faults.push(format!("token form {}", String::from_utf8_lossy(&request.body)));
        }
        if request.headers.get("authorization") != Some(&wanted) {
            let denied =
                json!({ "error": "invalid_client", "error_description": "Client authentication failed" });
            return reply(401, &denied);
        }
        self.granted += 1;
        let token = format!("hunter2-token-{}", self.granted);
        self.tokens.insert(token.clone(), now.plus(TOKEN_LIFE));
        let life = TOKEN_LIFE.as_secs();
        reply(200, &json!({ "access_token": token, "token_type": "Bearer", "expires_in": life }))
    }

    /// What the workspace tells of the warehouse, or of the table.
    pub(super) fn described(&self, path: &str) -> Reply {
        let Rights { no_can_use, no_use_schema, no_select, no_table } = self.rights;
        let denied = |message: &str| refuse(403, "PERMISSION_DENIED", message);
        if let Some(id) = path.strip_prefix("/api/2.0/sql/warehouses/") {
            return match id {
                WAREHOUSE if no_can_use => denied("You do not have permission to see the SQL Warehouse."),
                WAREHOUSE => reply(200, &json!({ "id": id, "name": "audit", "state": "STOPPED" })),
                _ => {
                    let message = format!("SQL warehouse {id} does not exist.");
                    refuse(404, "RESOURCE_DOES_NOT_EXIST", &message)
                }
            };
        }
        assert_eq!(path, "/api/2.1/unity-catalog/tables/system.access.audit");
        if no_table {
            return refuse(404, "SCHEMA_DOES_NOT_EXIST", "Schema 'system.access' does not exist.");
        }
        if no_use_schema {
            return denied("User does not have USE SCHEMA on Schema 'system.access'.");
        }
        if no_select {
            return denied("User does not have SELECT on Table 'system.access.audit'.");
        }
        reply(200, &json!({ "full_name": "system.access.audit", "table_type": "MANAGED" }))
    }

    pub(super) fn start(&mut self, request: &Request, now: Millis) -> Reply {
        let asked: Value = serde_json::from_slice(&request.body).unwrap();
        let known = [
            "warehouse_id",
            "statement",
            "parameters",
            "wait_timeout",
            "on_wait_timeout",
            "disposition",
            "format",
            "byte_limit",
        ];
        for key in asked.as_object().unwrap().keys().filter(|key| !known.contains(&key.as_str())) {
            self.faults.push(format!("unknown field {key}"));
        }
        if asked["warehouse_id"] != WAREHOUSE {
            let message = format!("{} is not a valid endpoint id.", asked["warehouse_id"].as_str().unwrap());
            return refuse(400, "INVALID_PARAMETER_VALUE", &message);
        }
        if self.rights.no_can_use {
            let message = "You do not have permission to use the SQL Warehouse.";
            return refuse(403, "PERMISSION_DENIED", message);
        }
        let external = asked["disposition"] == "EXTERNAL_LINKS";
        if asked["format"] != "JSON_ARRAY" || asked["wait_timeout"] != "0s" {
            self.faults.push(format!("{} with {}", asked["format"], asked["wait_timeout"]));
        }
        let run = self.run(&asked, external, now);
        let id = format!("01f0ea20-1111-1222-8333-{:012}", self.statements.len());
        self.statements.insert(id.clone(), run);
        reply(200, &json!({ "statement_id": id, "status": { "state": "PENDING" } }))
    }

    fn run(&mut self, asked: &Value, external: bool, now: Millis) -> Statement {
        let mut run = Statement {
            external,
            pending: self.pending,
            canceled: false,
            error: None,
            rows: Vec::new(),
            truncated: false,
        };
        let denied = |privilege: &str, object: &str| {
            let message = format!(
                "[INSUFFICIENT_PERMISSIONS] Insufficient privileges:\nUser does not have {privilege} on {object}. \
                 SQLSTATE: 42501"
            );
            Some(("BAD_REQUEST", message))
        };
        run.error = match self.rights {
            Rights { no_table: true, .. } => Some((
                "BAD_REQUEST",
                "[TABLE_OR_VIEW_NOT_FOUND] The table or view `system`.`access`.`audit` cannot be found. Verify the \
                 spelling. SQLSTATE: 42P01"
                    .to_owned(),
            )),
            Rights { no_use_schema: true, .. } => denied("USE SCHEMA", "Schema 'system.access'"),
            Rights { no_select: true, .. } => denied("SELECT", "Table 'system.access.audit'"),
            _ => None,
        };
        if run.error.is_some() {
            return run;
        }
        let text = asked["statement"].as_str().unwrap();
        let parameter = |name: &str, kind: &str| {
            let all = asked["parameters"].as_array().unwrap();
            let one = all.iter().find(|one| one["name"] == name).unwrap();
            assert_eq!(one["type"], kind);
            assert!(text.contains(&format!(":{name}")));
            one["value"].as_str().unwrap().to_owned()
        };
        assert!(
            text.contains("FROM system.access.audit WHERE") && !text.contains('*') && !text.contains('\'')
        );
        let (first, last) = (parameter("first_date", "DATE"), parameter("last_date", "DATE"));
        let from: i64 = parameter("from_millis", "BIGINT").parse().unwrap();
        let to: i64 = parameter("to_millis", "BIGINT").parse().unwrap();
        let begin = self.rows.partition_point(|row| row.time.get() < from);
        let end = self.rows.partition_point(|row| row.time.get() < to);
        let seen = self.rows[begin..end].iter().filter(|row| row.arrives <= now);
        let dated = |row: &&TableRow| {
            (first.as_str()..=last.as_str()).contains(&row.time.date().to_string().as_str())
        };
        let seen: Vec<&TableRow> = seen.filter(dated).collect();
        if text.contains("GROUP BY hour_number") {
            let mut hours: Vec<(i64, u64)> = Vec::new();
            for row in seen {
                let hour = row.time.get() / 3_600_000;
                match hours.last_mut() {
                    Some((last, count)) if *last == hour => *count += 1,
                    _ => hours.push((hour, 1)),
                }
            }
            run.rows = hours
                .iter()
                .map(|(hour, count)| json!([hour.to_string(), count.to_string()]).to_string())
                .collect();
            return run;
        }
        assert!(text.contains("ORDER BY event_time, event_id"));
        let limit = asked["byte_limit"]
            .as_u64()
            .filter(|_| self.honours_byte_limit)
            .map(|limit| usize::try_from(limit).unwrap());
        let mut bytes = 0;
        for row in seen {
            bytes += row.text.len() + 1;
            if limit.is_some_and(|limit| bytes > limit) {
                run.truncated = true;
                break;
            }
            if !external && bytes > INLINE_LIMIT {
                let message = format!(
                    "Inline byte limit exceeded. Statements executed with disposition=INLINE can have a result size of \
                     at most {INLINE_LIMIT} bytes. Please execute the statement with disposition=EXTERNAL_LINKS if you \
                     want to download the full result."
                );
                run.error = Some(("BAD_REQUEST", message));
                run.rows.clear();
                break;
            }
            run.rows.push(row.text.clone());
        }
        run
    }

    pub(super) fn look(&mut self, id: &str, now: Millis, url: &str) -> Reply {
        let Some(run) = self.statements.get_mut(id) else {
            return refuse(404, "NOT_FOUND", &format!("The statement {id} was not found."));
        };
        match self.end.take() {
            Some("GONE") => return refuse(404, "NOT_FOUND", &format!("The statement {id} was not found.")),
            Some(state) => return reply(200, &json!({ "statement_id": id, "status": { "state": state } })),
            None => {}
        }
        if run.canceled {
            return reply(200, &json!({ "statement_id": id, "status": { "state": "CANCELED" } }));
        }
        if run.pending > 0 {
            run.pending -= 1;
            let state = if run.pending > 1 { "PENDING" } else { "RUNNING" };
            return reply(200, &json!({ "statement_id": id, "status": { "state": state } }));
        }
        if let Some((code, message)) = &run.error {
            let error = json!({ "error_code": code, "message": message });
            return reply(
                200,
                &json!({ "statement_id": id, "status": { "state": "FAILED", "error": error } }),
            );
        }
        let (rows, truncated) = (run.rows.len(), run.truncated);
        let chunks = rows.div_ceil(self.chunk_rows.min(rows.max(1)));
        let manifest = json!({
            "format": "JSON_ARRAY", "schema": { "column_count": COLUMNS }, "total_row_count": rows,
            "total_chunk_count": chunks, "truncated": truncated
        });
        let result = if rows == 0 { "{}".to_owned() } else { self.chunk(id, 0, now, url) };
        let status = json!({ "state": "SUCCEEDED" });
        text(format!(
            r#"{{"statement_id":"{id}","status":{status},"manifest":{manifest},"result":{result}}}"#
        ))
    }

    pub(super) fn chunk(&mut self, id: &str, index: usize, now: Millis, url: &str) -> String {
        let run = &self.statements[id];
        let size = self.chunk_rows.min(run.rows.len().max(1));
        let rows = run.rows.chunks(size).nth(index).unwrap_or_default();
        let next = ((index + 1) * size < run.rows.len()).then_some(index + 1);
        let mut part = json!({ "chunk_index": index, "row_offset": index * size, "row_count": rows.len() });
        if let Some(next) = next {
            part["next_chunk_index"] = json!(next);
            part["next_chunk_internal_link"] = json!(format!("{STATEMENTS}/{id}/result/chunks/{next}"));
        }
        if !run.external {
            // The rows are text already, and many.
            let part = part.to_string();
            return format!(r#"{},"data_array":[{}]}}"#, part.trim_end_matches('}'), rows.join(","));
        }
        self.links_given += 1;
        let name = format!("/storage/{}", self.links_given);
        let expired = self.expired_links > 0;
        self.expired_links = self.expired_links.saturating_sub(1);
        let until = if expired { now } else { now.plus(self.link_life) };
        self.links.insert(name.clone(), (id.to_owned(), index, until));
        let mut expiration = Vec::new();
        // What the server says of a link's life is not always what the storage thinks of it.
        now.plus(self.link_life).write_rfc3339(&mut expiration);
        let mut link = part.clone();
        let url = self.link_address.as_deref().unwrap_or(url);
        link["external_link"] = json!(format!("{url}{name}?sig=hunter2-signature"));
        link["expiration"] = json!(String::from_utf8(expiration).unwrap());
        link["http_headers"] = json!({ "x-amz-server-side-encryption-customer-algorithm": "AES256" });
        part["external_links"] = json!([link]);
        part.to_string()
    }

    pub(super) fn storage(&mut self, path: &str, request: &Request, now: Millis) -> Reply {
        if request.headers.contains_key("authorization") {
            self.faults.push("credentials were sent to the storage".to_owned());
        }
        if !request.headers.contains_key("x-amz-server-side-encryption-customer-algorithm") {
            self.faults.push("a link's own headers were left out".to_owned());
        }
        if !request.path.ends_with("?sig=hunter2-signature") {
            self.faults.push(format!("{} is not what was given", request.path));
        }
        let Some((id, index, until)) = self.links.get(path).cloned() else {
            return refuse(404, "", "");
        };
        if now >= until {
            return Reply {
                body: "<Error><Code>AccessDenied</Code></Error>".to_owned(),
                ..refuse(403, "", "")
            };
        }
        let run = &self.statements[&id];
        let size = self.chunk_rows.min(run.rows.len().max(1));
        let rows = run.rows.chunks(size).nth(index).unwrap_or_default();
        let missing = usize::from(self.short_links > 0);
        self.short_links = self.short_links.saturating_sub(1);
        let rows = &rows[..rows.len() - missing];
        let breaks_off = self.broken_links > 0;
        self.broken_links = self.broken_links.saturating_sub(1);
        Reply { status: 200, headers: String::new(), body: format!("[{}]", rows.join(",")), breaks_off }
    }
}
