"""Results to text: functions from data to text, one module for each format."""
