"""What CI services read: annotations, SARIF and JUnit."""
