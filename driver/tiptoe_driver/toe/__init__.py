"""The offload device between the stack and the hardware: toe_usrreqs calls down, events up."""
