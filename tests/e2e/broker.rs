//! A Kafka broker, one for all tests: without login for the tests themselves, and as Event Hubs is reached, by SASL over
//! TLS. Topics and groups of a test are its own.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tempfile::TempDir;

/// What Event Hubs calls a connection string: here the password of the user `$ConnectionString`.
pub(crate) const CONNECTION_STRING: &str =
    "Endpoint=sb://acme.servicebus.windows.net/;SharedAccessKeyName=listen;SharedAccessKey=c2VjcmV0LWtleQ==";
/// A user who may log in and nothing else.
pub(crate) const STRANGER: (&str, &str) = ("stranger", "strange-password");
/// The subject of tokens that may read.
pub(crate) const TOKEN_SUBJECT: &str = "auditferry";
/// Longest wait for the broker.
const PATIENCE: Duration = Duration::from_secs(90);

static BROKER: LazyLock<Broker> = LazyLock::new(Broker::start);

pub(crate) fn broker() -> &'static Broker {
    &BROKER
}

pub(crate) struct Broker {
    /// `host:port` without login or TLS.
    pub(crate) plain: String,
    /// `host:port` as Event Hubs has it.
    pub(crate) hubs: String,
    /// The authority that has signed its certificate.
    pub(crate) ca_file: PathBuf,
    /// Ends with the pipe to it, so also when the tests are killed.
    process: Child,
    jars: String,
    directory: TempDir,
}

impl Broker {
    /// One of its own, for a test that ends it.
    pub(crate) fn start() -> Self {
        let jars = std::env::var("AUDITFERRY_E2E_KAFKA")
            .expect("set AUDITFERRY_E2E_KAFKA to a directory with the jars of org.apache.kafka:kafka_2.13; .ci/run makes one");
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path();
        let ca_file = certificate(here);
        let [plain, hubs, controller] = free_ports();
        let properties = here.join("server.properties");
        std::fs::write(&properties, settings(here, plain, hubs, controller)).unwrap();
        let format = Command::new("java")
            .args(["-XX:TieredStopAtLevel=1", "-cp", &classpath(&jars), "kafka.tools.StorageTool", "format"])
            .args(["-t", "YXVkaXRmZXJyeS1lMmUtMQ", "-c"])
            .arg(&properties)
            .output()
            .unwrap_or_else(|error| panic!("cannot start java: {error}; install a JDK of 17 or later"));
        assert!(format.status.success(), "{}", String::from_utf8_lossy(&format.stderr));
        let broker = Self {
            plain: format!("127.0.0.1:{plain}"),
            hubs: format!("localhost:{hubs}"),
            ca_file,
            process: launch(&jars, &properties),
            jars,
            directory,
        };
        broker.answers();
        broker
    }

    fn answers(&self) {
        let metadata = self.producer(&[]).client().fetch_metadata(None, PATIENCE);
        metadata.unwrap_or_else(|error| panic!("the broker does not answer: {error}"));
    }

    /// Ends it at once, as the power does.
    pub(crate) fn kill(&mut self) {
        drop(self.process.stdin.take());
        self.process.wait().unwrap();
    }

    /// Starts it again at the same address, with what it had on disk.
    pub(crate) fn restart(&mut self) {
        self.process = launch(&self.jars, &self.directory.path().join("server.properties"));
        self.answers();
    }

    /// Restarts it so that it takes another connection string than [`CONNECTION_STRING`], and that no more.
    pub(crate) fn restart_with(&mut self, connection_string: &str) {
        self.kill();
        let properties = self.directory.path().join("server.properties");
        let text = std::fs::read_to_string(&properties).unwrap();
        std::fs::write(&properties, text.replace(CONNECTION_STRING, connection_string)).unwrap();
        self.restart();
    }

    /// A producer without login, with further properties.
    pub(crate) fn producer(&self, properties: &[(&str, &str)]) -> BaseProducer {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.plain).set("queue.buffering.max.kbytes", "262144");
        for (key, value) in properties {
            client.set(*key, *value);
        }
        client.create().unwrap()
    }

    pub(crate) fn create_topic(&self, topic: &str, partitions: i32) {
        self.create_topic_with(topic, partitions, &[]);
    }

    /// The same with settings of its own.
    pub(crate) fn create_topic_with(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
        let mut wanted = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        for (key, value) in settings {
            wanted = wanted.set(key, value);
        }
        let made = self.administer(async |admin| admin.create_topics(&[wanted], &AdminOptions::new()).await);
        assert!(made.unwrap().iter().all(Result::is_ok));
    }

    /// Lets the messages before an offset of partition 0 expire.
    pub(crate) fn expire(&self, topic: &str, before: i64) {
        let mut wanted = TopicPartitionList::new();
        wanted.add_partition_offset(topic, 0, Offset::Offset(before)).unwrap();
        self.administer(async |admin| admin.delete_records(&wanted, &AdminOptions::new()).await).unwrap();
    }

    fn administer<T>(&self, act: impl AsyncFnOnce(&AdminClient<DefaultClientContext>) -> T) -> T {
        let admin = ClientConfig::new().set("bootstrap.servers", &self.plain).create().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(act(&admin))
    }
}

fn classpath(jars: &str) -> String {
    format!("{jars}/*")
}

fn launch(jars: &str, properties: &Path) -> Child {
    let mut command = Command::new("sh");
    // The shell outlives the tests by the blink it takes to end the broker.
    command.args(["-c", r#"java "$@" & broker=$!; read -r end; kill -9 $broker"#, "sh"]);
    command.args(["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
    command.args(["-cp", &classpath(jars), "kafka.Kafka"]).arg(properties);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::piped());
    let mut process = command.spawn().unwrap();
    // Its log must be read, or it blocks when the pipe is full.
    for output in [
        Box::new(process.stdout.take().unwrap()) as Box<dyn std::io::Read + Send>,
        Box::new(process.stderr.take().unwrap()),
    ] {
        std::thread::spawn(move || BufReader::new(output).lines().for_each(drop));
    }
    process
}

/// Sends a message to a partition; `None` is a tombstone.
pub(crate) fn put(producer: &BaseProducer, topic: &str, partition: i32, value: Option<&[u8]>) {
    let mut record: BaseRecord<'_, (), [u8]> = BaseRecord::to(topic).partition(partition);
    if let Some(value) = value {
        record = record.payload(value);
    }
    while let Err((_, full)) = producer.send(record) {
        producer.poll(Duration::from_millis(50));
        record = full;
    }
    producer.poll(Duration::ZERO);
}

pub(crate) fn flush(producer: &BaseProducer) {
    producer.flush(PATIENCE).unwrap();
}

fn free_ports() -> [u16; 3] {
    let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

/// Makes the broker's key, and gives its self-signed certificate as the authority to trust.
fn certificate(here: &Path) -> PathBuf {
    let ca_file = here.join("ca.pem");
    let keytool = |arguments: &[&str]| {
        let store = here.join("broker.p12");
        let output = Command::new("keytool")
            .args(arguments)
            .args(["-alias", "broker", "-storepass", "storepass", "-storetype", "PKCS12", "-keystore"])
            .arg(store)
            .output()
            .unwrap_or_else(|error| panic!("cannot start keytool: {error}; install a JDK of 17 or later"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    };
    let san = "san=dns:localhost,ip:127.0.0.1";
    keytool(&["-genkeypair", "-keyalg", "EC", "-dname", "CN=localhost", "-ext", san, "-validity", "30"]);
    keytool(&["-exportcert", "-rfc", "-file", &ca_file.display().to_string()]);
    ca_file
}

fn settings(here: &Path, plain: u16, hubs: u16, controller: u16) -> String {
    let here = here.display();
    let (user, password) = STRANGER;
    format!(
        r#"
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAIN://127.0.0.1:{plain},HUBS://127.0.0.1:{hubs},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAIN://127.0.0.1:{plain},HUBS://localhost:{hubs}
listener.security.protocol.map=PLAIN:PLAINTEXT,HUBS:SASL_SSL,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAIN
log.dirs={here}/logs
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=2
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=2
group.initial.rebalance.delay.ms=0
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:$ConnectionString;User:{TOKEN_SUBJECT}
listener.name.hubs.sasl.enabled.mechanisms=PLAIN,OAUTHBEARER
listener.name.hubs.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_$ConnectionString="{CONNECTION_STRING}" user_{user}="{password}";
listener.name.hubs.oauthbearer.sasl.jaas.config=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";
ssl.keystore.type=PKCS12
ssl.keystore.location={here}/broker.p12
ssl.keystore.password=storepass
ssl.key.password=storepass
"#
    )
}
