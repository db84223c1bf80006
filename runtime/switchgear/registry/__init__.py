"""The live table of instances and capabilities, fed by announcements (rule 15)."""
