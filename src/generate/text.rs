//! Values of generated fields, appended as JSON text: whoever embeds them need not escape them.

use fastrand::Rng;

/// Appends the last `digits` hexadecimal digits of a number.
pub(super) fn push_hex(value: u64, digits: u32, out: &mut String) {
    for place in (0..digits).rev() {
        let nibble = u32::try_from(value >> (4 * place) & 0xf).unwrap_or(0);
        out.push(char::from_digit(nibble, 16).unwrap_or('0'));
    }
}

/// Appends a decimal number.
pub(super) fn push_number(value: u64, out: &mut String) {
    let mut unit = 1;
    while value / unit >= 10 {
        unit *= 10;
    }
    while unit > 0 {
        out.push(char::from_digit(u32::try_from(value / unit % 10).unwrap_or(0), 10).unwrap_or('0'));
        unit /= 10;
    }
}

/// Appends a UUID of this version that holds every bit of `unique`, so that two unequal numbers never share one.
pub(super) fn push_uuid(unique: u64, version: u64, rng: &mut Rng, out: &mut String) {
    push_hex(rng.u64(..), 8, out);
    out.push('-');
    push_hex(unique >> 48, 4, out);
    out.push('-');
    push_hex(version << 12 | rng.u64(..0x1000), 4, out);
    out.push('-');
    push_hex(0x8000 | rng.u64(..0x4000), 4, out);
    out.push('-');
    push_hex(unique, 12, out);
}

/// Appends a UUID without a meaning.
pub(super) fn push_random_uuid(rng: &mut Rng, out: &mut String) {
    push_uuid(rng.u64(..), 4, rng, out);
}

/// One of the texts.
pub(super) fn pick(rng: &mut Rng, texts: &[&'static str]) -> &'static str {
    rng.choice(texts).copied().unwrap_or_default()
}

const PEOPLE: &[&str] = &[
    "dana",
    "erin",
    "frank",
    "grace",
    "heidi",
    "ivan",
    "judy",
    "mallory",
    "niaj",
    "olivia",
    "peggy",
    "rupert",
    "sybil",
    "trent",
    "victor",
    "wendy",
    "zoë.müller",
    "søren.k",
];
const APPLICATIONS: &[&str] = &[
    "8c0f7f0e-3f42-4a7c-9b5d-6a1e2c3d4e5f",
    "1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed",
    "c56a4180-65aa-42ec-a945-5fd21dec0538",
];

/// Appends who acted: mostly people, then service principals, now and then the platform itself or a group.
pub(super) fn push_user(rng: &mut Rng, out: &mut String) {
    match rng.u32(..100) {
        0..=71 => {
            out.push_str(pick(rng, PEOPLE));
            out.push_str("@example.com");
        }
        72..=93 => out.push_str(pick(rng, APPLICATIONS)),
        94..=97 => out.push_str("System-User"),
        _ => out.push_str("data-eng-group"),
    }
}

const CATALOGS: &[&str] = &["main", "prod", "sandbox", "hive_metastore"];
const SCHEMAS: &[&str] = &["sales", "finance", "hr_restricted", "bronze", "gold", "clickstream"];
const TABLES: &[&str] =
    &["orders", "customers", "payments", "events_raw", "größen", "daily_revenue", "salaries"];

pub(super) fn push_table(rng: &mut Rng, out: &mut String) {
    out.push_str(pick(rng, CATALOGS));
    out.push('.');
    out.push_str(pick(rng, SCHEMAS));
    out.push('.');
    out.push_str(pick(rng, TABLES));
}

pub(super) fn push_notebook_path(rng: &mut Rng, out: &mut String) {
    out.push_str("/Users/");
    out.push_str(pick(rng, PEOPLE));
    out.push_str("@example.com/");
    out.push_str(pick(
        rng,
        &["Exploration", "ETL/ingest", "ETL/publish", "Modèle de prévision", "Untitled Notebook"],
    ));
}

pub(super) fn push_volume_path(rng: &mut Rng, out: &mut String) {
    out.push_str("/Volumes/main/");
    out.push_str(pick(rng, SCHEMAS));
    out.push_str("/landing/part-");
    push_number(rng.u64(..100_000), out);
    out.push_str(pick(rng, &[".csv", ".parquet", ".json.gz", ".xlsx"]));
}

/// Columns of a statement. The quotes, the backslashes, the `\u` escapes and the characters beyond ASCII are there to
/// be carried through unharmed.
const SQL_COLUMNS: &[&str] = &[
    r"\n  , sum(o.net_amount) - sum(o.discount_amount) AS net_amount_",
    r"\n  , count(DISTINCT o.customer_id) FILTER (WHERE o.status = 'SHIPPED') AS customers_",
    r"\n  , date_trunc('MONTH', from_utc_timestamp(o.ordered_at, 'Europe/Berlin')) AS month_",
    r"\n  , max_by(o.status, o.updated_at) AS last_status_",
    r"\n  , CASE WHEN o.country IN ('DE', 'FR', 'NL', 'BE') THEN 'core' ELSE 'other' END AS region_",
    r"\n  , regexp_extract(o.page_path, '^/(\\w+)/(\\d+)', 1) AS area_",
    r#"\n  , o.attributes:campaign = \"newsletter\" AS from_newsletter_"#,
    r"\n  , 'Grüße aus Köln, 東京 🚀' AS label_",
    r"\n  , 'caf\u00e9 \ud83d\ude80' AS escaped_label_",
    r"\n  , percentile_approx(o.delivery_days, array(0.5, 0.9, 0.99), 1000) AS delivery_days_",
    r"\n  -- the finance team counts returns in the month of the order\n  , sum(o.returned_amount) AS returned_",
];

/// Appends a statement of at least this many bytes.
pub(super) fn push_sql(bytes: usize, rng: &mut Rng, out: &mut String) {
    let end = out.len() + rng.usize(bytes / 3..bytes + bytes / 3);
    out.push_str(r"SELECT o.country");
    while out.len() < end {
        out.push_str(pick(rng, SQL_COLUMNS));
        push_number(rng.u64(..1000), out);
    }
    out.push_str(r"\nFROM ");
    push_table(rng, out);
    out.push_str(r" AS o\nJOIN ");
    push_table(rng, out);
    out.push_str(r" AS c ON c.id = o.customer_id\nWHERE o.order_date >= current_date() - INTERVAL ");
    push_number(rng.u64(1..400), out);
    out.push_str(r" DAYS\nGROUP BY ALL");
}

const PYTHON_LINES: &[&str] = &[
    r#"\ndf = df.withColumn(\"net\", F.col(\"gross\") - F.coalesce(F.col(\"discount\"), F.lit(0)))  # step "#,
    r#"\ndf = df.filter((F.col(\"country\") == \"DE\") & (F.col(\"amount\") > 100))  # step "#,
    r#"\nprint(f\"rows so far: {df.count():,} – größer als gestern?\")  # step "#,
    r#"\nassert df.select(\"order_id\").distinct().count() == df.count(), 'duplicate orders'  # step "#,
    r#"\nwindow = Window.partitionBy(\"customer_id\").orderBy(F.desc(\"updated_at\"))  # step "#,
    r#"\ndf = df.withColumn(\"path\", F.regexp_replace(\"path\", r\"\\\\s+\", \"\\t\"))  # step "#,
    r#"\ndbutils.jobs.taskValues.set(key=\"rows\", value=df.count())  # step "#,
];

/// Appends notebook code of at least this many bytes.
pub(super) fn push_python(bytes: usize, rng: &mut Rng, out: &mut String) {
    let end = out.len() + rng.usize(bytes / 3..bytes + bytes / 3);
    out.push_str(r#"from pyspark.sql import functions as F, Window\ndf = spark.table(\""#);
    push_table(rng, out);
    out.push_str(r#"\")"#);
    while out.len() < end {
        out.push_str(pick(rng, PYTHON_LINES));
        push_number(rng.u64(..1000), out);
    }
    out.push_str(r#"\ndisplay(df)"#);
}

const AGENTS: &[&str] = &[
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Safari/605.1.15",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:144.0) Gecko/20100101 Firefox/144.0",
    "Apache-HttpClient/4.5.14 (Java/17.0.13)",
    "databricks-cli/0.240.0 databricks-sdk-go/0.56.1 go/1.24.0 os/linux cmd/jobs_create auth/pat",
    "databricks-sdk-py/0.40.0 python/3.11.9 os/linux auth/oauth-m2m",
    "Databricks-Runtime/15.4",
    "PyDatabricksSqlConnector/3.4.0 (dbt-databricks/1.9.1)",
    "SimbaSparkJDBCDriver/2.6.36 PowerBI",
    "HashiCorp Terraform/1.9.8 terraform-provider-databricks/1.61.0",
];

/// Appends the user agent: a JSON string, now and then an empty one or null.
pub(super) fn push_user_agent(rng: &mut Rng, out: &mut String) {
    match rng.u32(..100) {
        0 => out.push_str("null"),
        1..=3 => out.push_str("\"\""),
        _ => {
            out.push('"');
            out.push_str(pick(rng, AGENTS));
            out.push('"');
        }
    }
}

/// Appends the client's address: a JSON string or null. `with_port` is how Azure sometimes writes it.
pub(super) fn push_address(with_port: bool, rng: &mut Rng, out: &mut String) {
    let network = match rng.u32(..100) {
        0..=1 => return out.push_str("null"),
        2 => return out.push_str("\"\""),
        3 => return out.push_str("\"2001:db8:85a3::8a2e:370:7334\""),
        4..=55 => "\"198.51.100.",
        56..=79 => "\"203.0.113.",
        _ => "\"10.139.64.",
    };
    out.push_str(network);
    push_number(rng.u64(1..255), out);
    if with_port && rng.u32(..4) == 0 {
        out.push_str(":0");
    }
    out.push('"');
}

/// Appends the session: a JSON string or null.
pub(super) fn push_session(rng: &mut Rng, out: &mut String) {
    match rng.u32(..100) {
        0..=34 => return out.push_str("null"),
        35..=36 => return out.push_str("\"\""),
        37..=44 => {
            out.push('"');
            push_number(rng.u64(..), out);
        }
        45..=59 => {
            out.push_str("\"ephemeral-");
            push_random_uuid(rng, out);
        }
        _ => {
            out.push('"');
            push_random_uuid(rng, out);
        }
    }
    out.push('"');
}
