"""What people see of a run: progress, reports and the pages of the dashboard."""
