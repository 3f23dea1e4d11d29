pub struct Sim; pub struct SimConfig;
