use std::net::IpAddr;
pub(super) struct Collector(Vec<u8>);
pub(super) enum Step {
    Incomplete,
    Continue,
    Request { bytes: Vec<u8>, last: bool },
    Refuse(Vec<u8>),
}
impl Collector {
    pub fn new() -> Self {
        Self(Vec::new())
    }
    pub fn push(&mut self, b: &[u8]) {
        self.0.extend_from_slice(b)
    }
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    pub fn next(&mut self, _p: IpAddr, _k: &str) -> Step {
        Step::Incomplete
    }
    pub fn too_late() -> Vec<u8> {
        Vec::new()
    }
}
