//! Stands between the binary and a server, passes every byte on and remembers them: what was asked, and what it cost.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

pub(crate) struct Recorder {
    pub(crate) address: SocketAddr,
    record: Arc<Mutex<Record>>,
}

#[derive(Default)]
struct Record {
    asked: Vec<u8>,
    answered: Vec<u8>,
    interruption: Option<Interruption>,
}

struct Interruption {
    needles: [String; 2],
    act: Box<dyn FnOnce() + Send>,
}

impl Recorder {
    pub(crate) fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let record = Arc::new(Mutex::new(Record::default()));
        let shared = Arc::clone(&record);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                pass_on(client.unwrap(), TcpStream::connect(server).unwrap(), &shared);
            }
        });
        Self { address, record }
    }

    /// Does something once, just before a request that holds both needles (in lower case) reaches the server.
    pub(crate) fn interrupt(&self, needles: [&str; 2], act: impl FnOnce() + Send + 'static) {
        let needles = needles.map(str::to_owned);
        self.record.lock().unwrap().interruption = Some(Interruption { needles, act: Box::new(act) });
    }

    /// All requests so far, in lower case.
    pub(crate) fn asked(&self) -> String {
        String::from_utf8_lossy(&self.record.lock().unwrap().asked).to_lowercase()
    }

    /// The first bearer token that was shown.
    pub(crate) fn bearer(&self) -> Option<String> {
        let asked = String::from_utf8_lossy(&self.record.lock().unwrap().asked).into_owned();
        let token = asked.split_once("uthorization: Bearer ")?.1.lines().next()?;
        Some(token.to_owned())
    }

    /// All answers so far.
    pub(crate) fn answered(&self) -> String {
        String::from_utf8_lossy(&self.record.lock().unwrap().answered).into_owned()
    }

    pub(crate) fn forget(&self) {
        let mut record = self.record.lock().unwrap();
        record.asked.clear();
        record.answered.clear();
    }
}

fn pass_on(client: TcpStream, server: TcpStream, record: &Arc<Mutex<Record>>) {
    let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let shared = Arc::clone(record);
    std::thread::spawn(move || {
        copy(from, to, |bytes| {
            let text = String::from_utf8_lossy(bytes).to_lowercase();
            let mut record = shared.lock().unwrap();
            record.asked.extend_from_slice(bytes);
            let due =
                record.interruption.take_if(|due| due.needles.iter().all(|needle| text.contains(needle)));
            drop(record);
            if let Some(due) = due {
                (due.act)();
            }
        });
    });
    let shared = Arc::clone(record);
    std::thread::spawn(move || {
        copy(server, client, |bytes| shared.lock().unwrap().answered.extend_from_slice(bytes));
    });
}

/// Copies until either side closes; `see` is shown every piece before it is passed on.
fn copy(mut from: TcpStream, mut to: TcpStream, mut see: impl FnMut(&[u8])) {
    let mut buffer = [0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        see(&buffer[..length]);
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
