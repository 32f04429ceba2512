use iofog_connector::{mapping::*, net::certificate, relay::*, secret::Secret};
fn main() {
    let _ = simplelog::SimpleLogger::init(log::LevelFilter::Debug, Default::default());
    let (front, _l) = Front::new().unwrap();
    let tls = std::env::var("TLSDIR").ok().map(|d| certificate::server_config(d.as_ref()).unwrap());
    let (mut relay, handle) = Relay::new(Setup {
        listen: Some("127.0.0.1".parse().unwrap()),
        api_port: 17909,
        tls,
        connections: 20000,
        buffers: 1024,
        front,
    })
    .unwrap();
    std::thread::spawn(move || {
        let port = |port| AgentPort { port, passcode: Secret::new("secretpass"), max_connections: 2000, absence: None };
        handle
            .open(&Mapping { id: "a".into(), kind: Kind::Public { agents: port(17901), users: 17902 } })
            .unwrap()
            .unwrap();
        handle
            .open(&Mapping { id: "b".into(), kind: Kind::Private { sides: [port(17903), port(17904)] } })
            .unwrap()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_secs(3600));
        handle.stop().ok();
    });
    relay.run().unwrap();
}
