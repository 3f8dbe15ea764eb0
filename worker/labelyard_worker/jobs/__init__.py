"""Execution of one job: started once, watched, ended by a verdict, delivered."""
