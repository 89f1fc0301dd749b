"""QEMU's words: arguments, slots, memory; pure."""
