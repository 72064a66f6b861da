//! The binary against real servers. Needs the feature `e2e` and the servers, found in `PATH` or named by a
//! variable; that one is missing is a failure, not a reason to skip.
//!
//! | server | variable | from |
//! |---|---|---|
//! | `moto_server` | `AUDITFERRY_E2E_MOTO` | `pip install 'moto[server]'` |
//! | `azurite-blob` | `AUDITFERRY_E2E_AZURITE` | `npm install azurite` |
//! | `fake-gcs-server` | `AUDITFERRY_E2E_FAKE_GCS` | `go install github.com/fsouza/fake-gcs-server@latest` |
//! | a Kafka broker, in `java` | `AUDITFERRY_E2E_KAFKA`, the directory of its jars | Maven Central, `org.apache.kafka:kafka_2.13` |
//! | OpenSearch, with a `java` in `PATH` | `AUDITFERRY_E2E_OPENSEARCH`, its directory | Maven Central, `org.opensearch.distribution.integ-test-zip:opensearch` |
//! | Elasticsearch, with a `java` in `PATH` | `AUDITFERRY_E2E_ELASTICSEARCH`, its directory | Maven Central, `org.elasticsearch.distribution.integ-test-zip:elasticsearch` |
//! | `nginx` | `AUDITFERRY_E2E_NGINX` | `apt-get install nginx` |
//! | `tinyproxy` | `AUDITFERRY_E2E_TINYPROXY` | `apt-get install tinyproxy-bin` |
//! | `loki` | `AUDITFERRY_E2E_LOKI` | `go build github.com/grafana/loki/v3/cmd/loki` in `tests/e2e/loki` |
//! | `prometheus`, `promtool` | `AUDITFERRY_E2E_PROMETHEUS`, their directory | `apt-get install prometheus` |
//! | `node` with `playwright-core` | `AUDITFERRY_E2E_PLAYWRIGHT`, its `node_modules` | `npm install playwright-core` |
//! | Chromium | `AUDITFERRY_E2E_CHROMIUM` | `apt-get install chromium` |
//! | `otelcol` | `AUDITFERRY_E2E_OTELCOL` | `go build` in `tests/e2e/otelcol` |

// `cfg(test)` tells clippy that helpers may unwrap as the tests themselves may.
#[cfg(test)]
mod azure;
#[cfg(test)]
mod azurite;
#[cfg(test)]
mod balanced;
#[cfg(test)]
mod broker;
#[cfg(test)]
mod collector;
#[cfg(test)]
mod credentials;
#[cfg(test)]
mod elastic;
#[cfg(test)]
mod elasticsearch;
#[cfg(test)]
mod fake_gcs;
#[cfg(test)]
mod ferry;
#[cfg(test)]
mod front;
#[cfg(test)]
mod gcs;
#[cfg(test)]
#[path = "../it/support/collector.rs"]
#[expect(dead_code, reason = "the tests in process have more to ask of it")]
mod hec;
#[cfg(test)]
mod kafka;
#[cfg(test)]
mod kafka_output;
#[cfg(test)]
mod loki;
#[cfg(test)]
mod metadata;
#[cfg(test)]
mod moto;
#[cfg(test)]
mod nginx;
#[cfg(test)]
mod opensearch;
#[cfg(test)]
mod otel;
#[cfg(test)]
mod page;
#[cfg(test)]
mod prometheus;
#[cfg(test)]
mod proxy;
#[cfg(test)]
mod recorder;
#[cfg(test)]
mod s3;
#[cfg(test)]
mod secrets;
#[cfg(test)]
mod sqs;
#[cfg(test)]
mod tinyproxy;
#[cfg(test)]
#[path = "../it/support/tls.rs"]
#[expect(dead_code, reason = "the tests in process have more to ask of it")]
mod tls;
