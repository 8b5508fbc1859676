"""Vaccination records on their way to DPS: the rules, the formats, the use cases, and the AWS services beneath."""
